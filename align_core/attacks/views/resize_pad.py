"""Diverse inputs, DI (Xie et al. 2019): images that are shrunk at random and placed at random on black."""

import torch
from torch import Tensor

from align_core.attacks.sampling import resample, resized_axis
from align_core.attacks.views import Rows
from align_core.randomness import uniform


def resize_pad(rows: Rows, probability: float, smallest: float) -> Tensor:
    """Shrinks and places each image with the probability, and otherwise leaves it as it is.

    Args:
        rows: the images. Each has a size and a position of its own.
        probability: chance of each image to be transformed.
        smallest: smallest side after shrinking, as a share of the side, rounded down to whole pixels.
    """
    shrunk_NCHW, chance_N = shrunk(
        rows.images_NCHW, rows.keys_N, torch.full_like(rows.keys_N, smallest, dtype=torch.float64)
    )
    applies_N = chance_N < probability
    return torch.where(applies_N[:, None, None, None], shrunk_NCHW, rows.images_NCHW)


def shrunk(images_NCHW: Tensor, keys_N: Tensor, smallest_N: Tensor) -> tuple[Tensor, Tensor]:
    """The images shrunk to a random side and placed at random on black, and a further uniform draw for each.

    `smallest_N`, float64, is the smallest side as a share of the side. Sides are uniform over whole pixels from it on,
    without the full side, as in the paper.
    """
    draws_N4 = uniform(keys_N, (4,))
    matrices = []
    for length, place_N in ((images_NCHW.shape[3], draws_N4[:, 1]), (images_NCHW.shape[2], draws_N4[:, 2])):
        lowest_N = (smallest_N * length).floor().clamp_min(1).float()
        side_N = lowest_N + (draws_N4[:, 0] * (length - lowest_N)).floor()
        first_N = (place_N * (length - side_N + 1)).floor()
        matrices.append(resized_axis(first_N, side_N, length))
    return resample(images_NCHW, matrices[1], matrices[0]), draws_N4[:, 3]
