"""Reduction of the bit depth (Xu, Evans and Qi 2018)."""

import torch
from torch import Tensor


def bits(images_BCHW: Tensor, depth: int) -> Tensor:
    """Float pixels [B, C, H, W] in [0, 1], rounded to the nearest of 2^depth evenly spaced levels."""
    highest = 2**depth - 1
    rounded_BCHW: Tensor = torch.round(images_BCHW * highest) / highest
    return rounded_BCHW
