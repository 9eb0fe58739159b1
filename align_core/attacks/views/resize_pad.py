"""Diverse inputs, DI (Xie et al. 2019): images that are shrunk at random and placed at random on black."""

import torch
from torch import Tensor

from align_core.attacks.sampling import Resampled, shrunk_axis
from align_core.attacks.views import Rows
from align_core.randomness import uniform


def resize_pad(rows: Rows, probability: float, smallest: float) -> Tensor:
    """Shrinks and places each image with the probability, and otherwise leaves it as it is.

    Args:
        rows: the images. Each has a size and a position of its own.
        probability: chance of each image to be transformed.
        smallest: smallest side after shrinking, as a share of the side, rounded down to whole pixels.
    """
    smallest_N = torch.full_like(rows.keys_N, smallest, dtype=torch.float64)
    return shrunk(rows.images_NCHW, rows.keys_N, smallest_N, probability)


def shrunk(images_NCHW: Tensor, keys_N: Tensor, smallest_N: Tensor, probability: float = 1.0) -> Tensor:
    """With the probability, the images shrunk to a random side and placed at random on black, else as they are.

    `smallest_N`, float64, is the smallest side as a share of the side. Sides are uniform over whole pixels from it on,
    without the full side, as in the paper.
    """
    draws_N4 = uniform(keys_N, (4,))
    stays_N = draws_N4[:, 3] >= probability
    axes = []
    for length, place_N in ((images_NCHW.shape[3], draws_N4[:, 1]), (images_NCHW.shape[2], draws_N4[:, 2])):
        lowest_N = (smallest_N * length).floor().clamp_min(1).float()
        side_N = lowest_N + (draws_N4[:, 0] * (length - lowest_N)).floor()
        side_N = side_N.masked_fill(stays_N, length)
        axes.append(shrunk_axis((place_N * (length - side_N + 1)).floor(), side_N, length))
    made: Tensor = Resampled.apply(images_NCHW, axes[1], axes[0])
    return made
