"""Median smoothing (Xu, Evans and Qi 2018)."""

import torch
from torch import Tensor


def median(images_BCHW: Tensor, size: int) -> Tensor:
    """Float pixels [B, C, H, W]: each becomes the median of the `size` x `size` square around it, channel by channel.

    As in scipy's `median_filter`, which the authors use: a square of even size begins one pixel further to the upper
    left, the upper of two middle values counts, and the image is mirrored at its edges.
    """
    for dim in (2, 3):
        length = images_BCHW.shape[dim]
        places = torch.arange(-(size // 2), length + size - 1 - size // 2, device=images_BCHW.device) % (2 * length)
        mirrored = torch.where(places < length, places, 2 * length - 1 - places)
        images_BCHW = images_BCHW.index_select(dim, mirrored)
    squares_BCHWS = images_BCHW.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    return squares_BCHWS.sort(dim=4).values[..., size * size // 2]
