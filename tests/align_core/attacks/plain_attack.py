"""The attack a second time: one image after the other, one copy after the other, in float64, with plain loops."""

import math
from typing import Any

import numpy as np
import scipy.signal
import scipy.stats
import torch
from attack_setting import Setting
from plain_rules import RULES, Where, scaled_to_mean, single
from plain_views import VIEWS, Copy
from torch import Tensor
from torch.nn import functional as F

from align_core.attacks import AttackConfig
from align_core.attacks.parts import read_objective
from align_core.randomness import image_keys, normal, numbered_keys, part_keys, uniform


def attacked(setting: Setting, attack: AttackConfig, seed: int = 0) -> Tensor:
    """Adversarial images, uint8, of the setting's network, which is to be one in float64."""
    rows = zip(setting.ids, setting.images, setting.labels.tolist(), setting.wanted.tolist(), strict=True)
    return torch.stack([_Image(setting, attack, *row, seed).attacked() for row in rows])


class _Image:
    """The attack on one image."""

    def __init__(
        self, setting: Setting, attack: AttackConfig, image_id: str, image: Tensor, label: int, wanted: int, seed: int
    ) -> None:
        self.setting, self.attack, self.label, self.wanted = setting, attack, label, wanted
        self.centre_8bit, self.centre = image, image.double() / 255
        self.key = image_keys(seed, [image_id])
        self.share = 1.0 if attack.norm == "linf" else 1 / math.sqrt(image.numel())

    def attacked(self) -> Tensor:
        attack = self.attack
        start = image = self._start() if attack.random_start else self.centre
        momentum, memory = torch.zeros_like(self.centre), None
        pace = torch.ones_like(self.centre)
        for step in range(attack.warm_start + attack.steps):
            if step == attack.warm_start:
                image = start
            length = attack.step * (attack.warm_stride if step < attack.warm_start else 1)
            ahead = image + length * self.share * attack.momentum * momentum if attack.nesterov else image
            at = Where(
                image, ahead, part_keys(self.key, step, "step"), self.key, attack.eps * self.share,
                length * self.share, step == attack.warm_start + attack.steps - 1, self._gradient,
            )  # fmt: skip
            gradient, memory = self._ruled(at, memory)
            gradient = _blurred(gradient, self._kernel())
            before = momentum
            added = scaled_to_mean(gradient) if attack.normalized else gradient
            momentum = attack.momentum * momentum + added if attack.momentum else gradient
            if attack.step_decay != 1:
                compared = before if attack.step_decay_by == "momentum" else gradient
                turned = compared.sign() != momentum.sign()
                if step == 0 and attack.step_decay_by == "momentum":
                    turned[:] = False  # there is no sign before the first to turn: the paper starts at 1 / decay
                elif step == 0:
                    pace = pace / attack.step_decay
                pace = torch.where(turned, pace * attack.step_decay, pace)
            direction = momentum.sign() if attack.norm == "linf" else momentum / (momentum.norm() or 1)
            image = self._kept(image + length * pace * direction)
        return self._rounded(image)

    def _kernel(self) -> int:
        if self.attack.kernel != "auto":
            return int(self.attack.kernel)
        side = max(self.centre.shape[1:])
        odd = range(3 if side < 24 else 5, 400, 2)
        return min(odd, key=lambda number: abs(number - 15 * side / 224))

    def _start(self) -> Tensor:
        key = part_keys(self.key, 0, "start")
        if self.attack.norm == "linf":
            return self._kept(self.centre + self.attack.eps * (2 * uniform(key, self.centre.shape)[0].double() - 1))
        bell = normal(part_keys(key, 0, "direction"), self.centre.shape)[0].double()
        length = float(uniform(part_keys(key, 0, "length"), (1,))) ** (1 / self.centre.numel())
        return self._kept(self.centre + self.attack.eps * length * bell / bell.norm())

    def _kept(self, image: Tensor) -> Tensor:
        away = image - self.centre
        if self.attack.norm == "linf":
            away = away.clamp(-self.attack.eps, self.attack.eps)
        elif away.norm() > self.attack.eps:
            away = away * self.attack.eps / away.norm()
        return (self.centre + away).clamp(0, 1)

    def _ruled(self, at: Where, memory: Any) -> tuple[Tensor, Any]:
        if self.attack.rule is None:
            return single(at, memory)
        settings = {name: value for name, value in self.attack.rule.items() if name != "name"}
        if self.attack.rule["name"] == "pool":
            settings["copies"] = math.prod(view["copies"] for view in self.attack.views)
        return RULES[self.attack.rule["name"]](at, memory, **settings)

    def _gradient(self, point: Tensor, key: Tensor | None, through: Any = None) -> Tensor:
        """The mean gradient over all copies, or that of the mean logits; without a key, of the point itself."""
        leaf = point.detach().clone().requires_grad_()
        seen = through(leaf) if through else leaf
        copies = [seen] if key is None else self._copies(seen, key, 0)
        if self.attack.combine == "logits":
            value = self._value(torch.stack([self._logits(copy) for copy in copies]).mean(dim=0))
        else:
            value = torch.stack([self._value(self._logits(copy)) for copy in copies]).mean()
        return torch.autograd.grad(value, leaf)[0]

    def _copies(self, image: Tensor, key: Tensor, place: int) -> list[Tensor]:
        """The copies that the views make from the one at `place` on: those of each copy, one after the other."""
        if place == len(self.attack.views):
            return [image]
        view = self.attack.views[place]
        settings = {name: value for name, value in view.items() if name not in ("name", "copies")}
        made = []
        for number in range(view["copies"]):
            own_key = numbered_keys(part_keys(key, 0, f"{place}/{view['name']}"), torch.tensor([number]))
            copy = Copy(
                own_key, number, view["copies"], self.label, self.attack.eps * self.share, self.setting.others,
                lambda image: self._value(self._logits(image)),
            )  # fmt: skip
            made += self._copies(VIEWS[view["name"]](image, copy, **settings), own_key, place + 1)
        return made

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.setting.net(image[None])[0]
        return logits

    def _value(self, logits: Tensor) -> Tensor:
        """What is maximised, in the papers' own words."""
        objective = read_objective(self.attack.objective)
        targeted = self.attack.is_targeted
        of_class, sign = (self.wanted, -1) if targeted else (self.label, 1)
        rest = torch.cat([logits[:of_class], logits[of_class + 1 :]])
        match objective["name"]:
            case "cross_entropy":
                return sign * F.cross_entropy(logits, torch.tensor(of_class))
            case "logit_margin":
                return sign * F.cross_entropy(logits / objective["temperature"], torch.tensor(of_class))
            case "margin":
                return sign * (rest.max() - logits[of_class])
            case "logit":
                return -sign * logits[of_class]
            case "probability":
                return -sign * logits.softmax(dim=0)[of_class]
        return _po_trip(logits, self.label, self.wanted, objective["weight"], objective["margin"])

    def _rounded(self, image: Tensor) -> Tensor:
        """Rounded to 8 bits. Where that leaves the ball, pixels step back one by one, the one furthest out first."""
        levels = (image * 255).round()
        centre, eps = self.centre_8bit.double(), self.attack.eps * 255 + 1e-4
        if self.attack.norm == "linf":
            return torch.maximum(torch.minimum(levels, centre + int(eps)), centre - int(eps)).clamp(0, 255).byte()
        away = (levels - centre).flatten()
        outwards = away.abs() - (image * 255 - centre).flatten().abs()
        for pixel in sorted(range(len(away)), key=lambda pixel: -float(outwards[pixel])):
            if away.square().sum() <= int(eps**2):
                break
            away[pixel] -= away[pixel].sign()
        return (centre + away.view_as(centre)).byte()


def _blurred(gradient: Tensor, side: int) -> Tensor:
    if not side:
        return gradient
    bell = scipy.stats.norm.pdf(np.linspace(-3, 3, side))
    kernel = np.outer(bell, bell) / np.outer(bell, bell).sum()
    return torch.from_numpy(np.stack([scipy.signal.convolve2d(plane, kernel, mode="same") for plane in gradient]))


def _po_trip(logits: Tensor, label: int, wanted: int, weight: float, margin: float) -> Tensor:
    """Li et al. (2020, equations 3 to 6), as their code reads them."""
    size = len(logits)
    label_point, wanted_point = (torch.eye(size, dtype=torch.float64)[of_class] for of_class in (label, wanted))
    point, goal = logits / logits.abs().sum(), (wanted_point - 1e-5).clamp(0, 1)
    theta = 2 * (point - goal).square().sum() / ((1 - point.square().sum()) * (1 - goal.square().sum()))
    cosines = [torch.dot(logits, one_hot).abs() / logits.norm() for one_hot in (label_point, wanted_point)]
    return -torch.acosh(1 + theta) - weight * (cosines[0] - cosines[1] + margin).clamp_min(0)
