"""Diversity ensemble, DEM (Zou et al. 2020): each copy is resized within another range."""

from torch import Tensor

from align_core.attacks.views import Rows
from align_core.attacks.views.resize_pad import shrunk


def sizes(rows: Rows, rate: float, growth: float) -> Tensor:
    """Copy k is enlarged by up to `rate + growth * k`, padded to that size and resized back.

    The three resizings are made as one: the image shrinks to a side between the whole and its share of the padded one.
    """
    smallest_N = 1 / (rate + growth * rows.copies_N.double())
    return shrunk(rows.images_NCHW, rows.keys_N, smallest_N)[0]
