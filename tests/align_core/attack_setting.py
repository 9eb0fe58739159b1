"""Networks and images for tests of attacks."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from align_core.attacks import PRESETS, AttackConfig, ForeignConfig, Others, craft
from align_core.attacks.parts import RULES
from align_core.models import Classifier

EPS = 8 / 255

TARGETED = [name for name, preset in PRESETS.items() if "towards" in preset.settings]
RANDOM = {
    name
    for name, preset in PRESETS.items()
    if preset.settings.get("random_start")
    or preset.settings.get("samples") not in (None, "line", "integrated")
    or any(part not in ("scale",) for part in preset.settings.get("views", []))
}
"""The presets in which chance has a part."""


@dataclass(frozen=True)
class Setting:
    """A network that takes pixels in [0, 1], and uint8 images with labels to attack it on."""

    net: nn.Module
    images: Tensor
    labels: Tensor
    classes: int = 10

    @property
    def ids(self) -> list[str]:
        return [f"{row:04d}" for row in range(len(self.images))]

    @property
    def others(self) -> Others:
        """Other images of the same shapes, for attacks that mix them in."""
        images = random_images(12, *self.images.shape[1:]).flip(2)
        return Others(images, torch.arange(12) % self.classes)

    @property
    def wanted(self) -> Tensor:
        """A class to lead each image to: the next."""
        return (self.labels + 1) % self.classes

    def craft(self, method: str | AttackConfig | ForeignConfig, seed: int = 0, **settings: Any) -> Tensor:
        return self.crafted(method, seed, None, **settings)

    def crafted(
        self, method: str | AttackConfig | ForeignConfig, seed: int, pass_rows: int | None, **settings: Any
    ) -> Tensor:
        """As `craft`, of a method with settings or of a whole attack, in passes of a size."""
        attack = method if not isinstance(method, str) else attack_of(method, **settings)
        return craft(
            self.net, self.images, self.labels, self.ids, attack, seed,
            wanted_B=self.wanted if attack.is_targeted else None, others=self.others, pass_rows=pass_rows,
        )  # fmt: skip

    def rows(self, rows: list[int]) -> "Setting":
        """The same with some of the images, which lose their ids: see `ids`."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def double(self) -> "Setting":
        """The same with a network in float64."""
        return replace(self, net=Double(self.net))


class Double(nn.Module):
    """A network in float64, so that two methods are compared rather than their rounding.

    The oracles' cross-entropy rounds p(label) to 1 in float32, and one changed sign leads to different images.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).double()

    def forward(self, images: Tensor) -> Tensor:
        images = images.double()
        if isinstance(self.net, Classifier):  # its forward would return float32
            return self.net.net((images - self.net.mean_C11) / self.net.std_C11)
        logits: Tensor = self.net(images)
        return logits


class Recorder(nn.Module):
    """A surrogate that records every batch on which it is called."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.net(images)

    @property
    def rows(self) -> int:
        """How many images have been seen."""
        return sum(map(len, self.seen))


def random_images(*shape: int) -> Tensor:
    """8-bit noise with many pixels at both ends of the range, where the ball is cut off."""
    wide = np.random.default_rng(0).normal(127, 90, size=shape)
    return torch.from_numpy(wide.round().clip(0, 255).astype(np.uint8))


def linear(weights, biases=None) -> nn.Module:
    """A network whose logits are linear in the pixels; `weights` has a row per class."""
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.weight.data = torch.tensor(weights)
    layer.bias.data = torch.tensor(biases or [0.0] * len(weights))
    return nn.Sequential(nn.Flatten(), layer)


def attack_of(method: str, **settings: Any) -> AttackConfig:
    """A method with settings, and with an eps that suits its norm unless one is given."""
    norm = settings.get("norm", PRESETS[method].settings.get("norm", "linf"))
    return AttackConfig(method=method, **{"eps": EPS if norm == "linf" else 0.5, **settings})


def quick(method: str, most: int = 2, steps: int = 3) -> dict[str, Any]:
    """Settings that shorten the method for tests: few steps, and few copies and points."""
    whole = attack_of(method)
    settings: dict[str, Any] = {"steps": min(steps, whole.steps)}
    if whole.views:
        settings["views"] = [{**view, "copies": min(view["copies"], most)} for view in whole.views]
    if whole.rule:
        settings["samples"] = {**whole.rule, "count": min(whole.rule["count"], most)}
        assert whole.rule["name"] in RULES
    # Of so few steps each is as long as the whole way, unless they are the attack's own.
    settings["step"] = min(whole.eps, whole.step * whole.steps / settings["steps"])
    return settings
