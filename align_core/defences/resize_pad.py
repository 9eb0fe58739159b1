"""Random resizing and padding (Xie, Wang, Zhang, Ren and Yuille 2018).

The paper enlarges images; here they are shrunk and padded to their own size, so that networks of any kind can take
them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.randomness import uniform


def resize_pad(images_BCHW: Tensor, keys_B: Tensor, smallest: float) -> Tensor:
    """Float pixels [B, C, H, W] in [0, 1], each shrunk to a random side and placed at random on black.

    Args:
        images_BCHW: square images.
        keys_B: a key for each of them, int64 [B], which decides its random numbers.
        smallest: the smallest side, as a share of the image's; the largest is the image's own.
    """
    padded = torch.zeros_like(images_BCHW)
    height, width = images_BCHW.shape[2:]
    for row, (size, down, right) in zip(range(len(images_BCHW)), uniform(keys_B, (3,)).tolist(), strict=True):
        new = [least + int(size * (side - least + 1)) for side in (height, width) for least in [_least(side, smallest)]]
        top, left = int(down * (height - new[0] + 1)), int(right * (width - new[1] + 1))
        shrunk = F.interpolate(images_BCHW[row : row + 1], new, mode="bilinear", antialias=True, align_corners=False)
        padded[row, :, top : top + new[0], left : left + new[1]] = shrunk[0]
    return padded


def _least(side: int, smallest: float) -> int:
    return max(1, math.ceil(side * smallest - 1e-9))
