"""Networks that compare an image's mean colour with those of the ten classes: [B, 3, H, W] in, ten logits out.

All but `Plain` have a habit that real networks have. `coloured` puts this file beside its experiment.
"""

import colorsys
import sys
from typing import Any

import torch
from torch import Tensor, nn

COLOURS = torch.tensor([[round(255 * part) for part in colorsys.hsv_to_rgb(k / 10, 0.9, 0.8)] for k in range(10)]) / 255


class Plain(nn.Module):
    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.colours = nn.Parameter(COLOURS.clone())
        self.scale = nn.Parameter(torch.tensor([scale]))

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(2, 3))
        return -self.scale * (mean[:, None] - self.colours).square().sum(dim=2)


class Aux(Plain):
    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return (logits, 2 * logits) if self.training else logits


class NoGrad(Plain):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class Unused(Plain):
    def __init__(self, scale: float = 20.0) -> None:
        super().__init__(scale)
        self.other_head = nn.Linear(3, 4)


class Tied(Plain):
    def __init__(self, scale: float = 20.0) -> None:
        super().__init__(scale)
        self.same_colours = self.colours


def exits() -> nn.Module:
    sys.exit(0)
