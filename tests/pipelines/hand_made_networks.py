"""The networks of `hand_made`, which puts this file beside its experiment."""

import torch
from torch import nn


def linear(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))


class EightBit(nn.Module):
    """Returns logits that are not finite for bright pixels that no 8-bit image has, as some random points have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = linear(width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = 255 * images
        is_odd = ((levels - levels.round()).abs() > 1e-2)[:, 0, 0, 0] & (levels[:, 0, 0, 0] > 150)
        return torch.where(is_odd[:, None], torch.nan, self.body(images))


def eight_bit(width: int) -> nn.Module:
    return EightBit(width)
