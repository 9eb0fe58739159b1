"""Networks and images for tests of attacks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from align_core.attacks import AttackConfig, craft

EPS = 8 / 255


@dataclass(frozen=True)
class Setting:
    """A network that takes pixels in [0, 1], and uint8 images with labels to attack it on."""

    net: nn.Module
    images: Tensor
    labels: Tensor

    @property
    def ids(self) -> list[str]:
        return [f"{row:04d}" for row in range(len(self.images))]

    def craft(self, method: str, seed: int = 0, **settings) -> Tensor:
        attack = AttackConfig(method=method, **{"eps": EPS, **settings})
        return craft(self.net, self.images, self.labels, self.ids, attack, seed)


def random_images(*shape: int) -> Tensor:
    """8-bit noise with many pixels at both ends of the range, where the ball is cut off."""
    wide = np.random.default_rng(0).normal(127, 90, size=shape)
    return torch.from_numpy(wide.round().clip(0, 255).astype(np.uint8))


class Recorder(nn.Module):
    """A surrogate that records every batch on which it is called."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.net(images)


def linear(weights, biases=None) -> nn.Module:
    """A network whose logits are linear in the pixels; `weights` has a row per class."""
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.weight.data = torch.tensor(weights)
    layer.bias.data = torch.tensor(biases or [0.0] * len(weights))
    return nn.Sequential(nn.Flatten(), layer)


def quick(method: str) -> dict[str, int]:
    """Settings that shorten the method for tests: few steps and few neighbours."""
    return {"steps": 1 if method == "fgsm" else 3, "neighbours": 2 if method in ("vmi", "vni") else 0}
