"""The settings of an attack. Nothing here imports torch, so that commands which only read settings start fast."""

import math
from copy import copy
from dataclasses import dataclass, fields
from typing import Any, Self

from align_core.attacks.budget import fitted
from align_core.attacks.contradictions import check_together, without_effect
from align_core.attacks.cost import gradients_of
from align_core.attacks.lengths import NORMS, check_lengths, check_radius, pixel_fraction, step_of
from align_core.attacks.parts import REVISIONS, VIEWS, read_objective, read_rule, read_view
from align_core.attacks.presets import PRESETS
from align_core.bounds import choice_of
from align_core.errors import InputError
from align_core.settings import Settings

TOWARDS = ("column", "next", "random", "least_likely")
"""How a targeted attack finds the class that it leads an image to."""

PASS_ROWS = {"cpu": 100, "cuda": 1000}
"""Rows of one pass through the surrogate, unless asked for otherwise, by the kind of device."""

_MOST_GRADIENTS = 10_000_000

# The default of settings that the method's preset decides. It is replaced when the attack is made.
_OF_METHOD: Any = None

_PLAIN: dict[str, Any] = {
    "norm": "linf",
    "objective": "cross_entropy",
    "towards": "away",
    "random_start": False,
    "momentum": 0.0,
    "normalized": True,
    "nesterov": False,
    "warm_start": 0,
    "warm_stride": 1.0,
    "step_decay": 1.0,
    "step_decay_by": "momentum",
    "kernel": 0,
    "views": [],
    "combine": "gradients",
    "samples": "none",
}
"""Plain iterated gradient signs: what a preset does not say."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig(Settings):
    """A fully specified attack within a ball around the image.

    A setting that is not given, or is None, takes the value of the method's preset, so that every setting has a value
    once the attack is made. Parts (views, samples, objective) are written as names, or as keys and values with a name;
    see `align_core.attacks.parts`. Raises ValueError for values out of range, for settings that contradict each other,
    and for those that would be ignored.

    Args:
        method: a name in `PRESETS`.
        eps: radius of the ball. As a fraction of the pixel range: 4/255, for example; in the l2 ball the Euclidean
            length over all pixels in [0, 1]. Text such as "4/255" is turned into a number here, as in `step`.
        step: length of a step, in the units of eps. By default the preset's reach times eps / steps, but no longer than
            is of use: see `lengths.step_of`.
        steps: number of steps.
        budget: most gradients per image. It decides `steps`, and where five steps do not fit, it lowers the number of
            copies and points; see `align_core.attacks.budget`. A `step` beside it is taken as it is written, and
            `steps` beside it must be the number that it decides.
        norm: of the ball: `linf` or `l2`.
        objective: what the attack maximises: a name in `OBJECTIVES`.
        towards: `away` from the label; or, for a targeted attack, how the class to lead to is found: `column` of the
            image set, the `next` class, a `random` other class, or the `least_likely` for the source.
        random_start: whether the attack starts at a random point of the ball instead of the image.
        momentum: decay of the accumulated gradient; 0 turns the momentum off.
        normalized: whether a gradient is divided by its mean absolute value before it is accumulated.
        nesterov: whether the gradient is taken at the point to which the momentum leads (NI).
        warm_start: number of steps that gather momentum first, after which the image is put back (GI).
        warm_stride: length of those steps, in units of `step`.
        step_decay: factor by which a pixel's step shrinks whenever its sign turns (GRA); 1 turns this off.
        step_decay_by: whether the sign of the momentum is compared with the last `momentum` (GRA) or with the
            `gradient` (FGSRA).
        kernel: side in pixels of the Gaussian that smooths the gradient (TI), odd; 0 turns this off; `auto` is the odd
            number nearest to 15 for 224 pixels, in proportion, but at least 5 (3 below 24 pixels).
        views: transformations of the image, one after the other; each makes `copies`, and their numbers multiply.
        combine: what is averaged over the copies: their `gradients`, or their `logits` (DEM).
        samples: the rule that combines the gradients at several points; `none` takes one gradient.
    """

    method: str
    eps: float
    step: float = _OF_METHOD
    steps: int = _OF_METHOD
    budget: int | None = None
    norm: str = _OF_METHOD
    objective: str | dict[str, Any] = _OF_METHOD
    towards: str = _OF_METHOD
    random_start: bool = _OF_METHOD
    momentum: float = _OF_METHOD
    normalized: bool = _OF_METHOD
    nesterov: bool = _OF_METHOD
    warm_start: int = _OF_METHOD
    warm_stride: float = _OF_METHOD
    step_decay: float = _OF_METHOD
    step_decay_by: str = _OF_METHOD
    kernel: int | str = _OF_METHOD
    views: list[Any] = _OF_METHOD
    combine: str = _OF_METHOD
    samples: str | dict[str, Any] = _OF_METHOD

    def __post_init__(self) -> None:
        for name in ("eps", "step"):
            if isinstance(getattr(self, name), str):
                self._set(name, pixel_fraction(getattr(self, name)))
        super().__post_init__()
        if self.method not in PRESETS:
            raise ValueError(f"there is no method {self.method!r}; {choice_of(self.method, PRESETS)}")
        given = self.steps
        preset = PRESETS[self.method]
        usual = {"steps": preset.steps, **_PLAIN, **preset.settings}
        for name, value in usual.items():
            if getattr(self, name) is None:
                self._set(name, value)
        self._read_parts()
        self._check()
        check_together(self, usual)
        if self.budget is not None:
            self._fit_budget(self.budget, given)
        if self.step is None:
            self._set("step", step_of(self.eps, preset.reach / self.steps, self.norm))
        self._check_lengths()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass permits no plain assignment, even here

    def _read_parts(self) -> None:
        objective = read_objective(self.objective)
        self._set("objective", objective if len(objective) > 1 else objective["name"])
        self._set("views", [read_view(view) for view in self.views])
        self._set("samples", "none" if self.samples in ("none", {"name": "none"}) else read_rule(self.samples))

    def _fit_budget(self, budget: int, given: int | None) -> None:
        """Chooses steps, and where need be fewer copies and points, so that the attack keeps to the budget."""
        chosen = fitted(self.views, self.rule, self.warm_start, budget, PRESETS[self.method].steps == 1)
        self._set("views", chosen.views)
        self._set("samples", chosen.rule or "none")
        self._set("steps", chosen.steps)
        if given not in (None, self.steps):
            raise ValueError(
                f"a budget of {budget} makes {self.steps} steps, and steps is {given}; leave one of them out"
            )

    def _check(self) -> None:
        """Checks the settings one by one."""
        wholes = [
            ("steps", 1 <= self.steps <= 100_000, "from 1 to 100,000"),
            ("steps", PRESETS[self.method].steps > 1 or self.steps == 1, f"1 for {self.method}, which takes one step"),
            ("budget", self.budget is None or self.budget >= 1, "at least 1"),
            ("norm", self.norm in NORMS, f"one of {', '.join(NORMS)}"),
            ("towards", self.towards in ("away", *TOWARDS), f"one of away, {', '.join(TOWARDS)}"),
            ("momentum", 0 <= self.momentum <= 10, "from 0 to 10"),
            ("warm_start", 0 <= self.warm_start <= 1000, "from 0 to 1,000"),
            ("warm_stride", 0 < self.warm_stride <= 1000, "above 0 and not above 1,000"),
            ("step_decay", 0 < self.step_decay <= 1, "above 0 and not above 1"),
            ("step_decay_by", self.step_decay_by in ("momentum", "gradient"), "momentum or gradient"),
            ("kernel", _is_kernel(self.kernel), "odd, 0, or auto"),
            ("combine", self.combine in ("gradients", "logits"), "gradients or logits"),
        ]
        for name, holds, wanted in wholes:
            if not holds:
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)}")
        if len(self.views) > 8:
            raise ValueError(f"there may be at most 8 views, one after the other, not {len(self.views)}")

    def _check_lengths(self) -> None:
        check_lengths(self.eps, self.step, self.norm)
        if self.gradients > _MOST_GRADIENTS:
            raise ValueError(
                f"steps, copies and points make {self.gradients:,} gradients per image, more than "
                f"{_MOST_GRADIENTS:,}: no attack would end"
            )

    @property
    def objective_name(self) -> str:
        """The name of the objective."""
        return str(self.objective["name"]) if isinstance(self.objective, dict) else self.objective

    @property
    def rule(self) -> dict[str, Any] | None:
        """The rule that combines the gradients at several points, or None where there is one point."""
        return self.samples if isinstance(self.samples, dict) else None

    @property
    def is_targeted(self) -> bool:
        """Whether the attack leads towards a class, rather than away from the label."""
        return self.towards != "away"

    @property
    def needs_others(self) -> bool:
        """Whether a view mixes in other images of the image set."""
        return any(VIEWS[view["name"]].needs_others for view in self.views)

    @property
    def gradients(self) -> int:
        """Number of forward and backward passes through the surrogate that one image costs."""
        return gradients_of(self.views, self.rule, self.warm_start + self.steps)

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the adversarial images; fingerprints are computed from them.

        The names of the method and of the budget are left out, because what they stand for is in its place, and so are
        settings without effect: the same attack written in two ways has one fingerprint. Revisions of its parts are
        there where they are not 1.
        """
        left_out = {"method", "budget", *without_effect(self)}
        settings = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in left_out}
        parts = {view["name"] for view in self.views}
        parts |= {self.rule["name"]} if self.rule else set()
        parts |= {"kernel"} if self.kernel else set()
        revisions = [f"{name} {number}" for name, number in REVISIONS.items() if name in parts]
        return settings | ({"revisions": revisions} if revisions else {})

    def for_images(self, channels: int, side: int) -> Self:
        """The attack on square images of this size: `kernel: auto` becomes a number.

        Raises InputError for a kernel or a radius that does not suit the images.
        """
        kernel = kernel_for(side) if self.kernel == "auto" else int(self.kernel)
        if kernel > 2 * side + 1:
            raise InputError(f"kernel must be at most {2 * side + 1} for images of {side} pixels, not {kernel}")
        check_radius(self.eps, self.norm, channels, side)
        resolved = copy(self)
        resolved._set("kernel", kernel)
        return resolved


def kernel_for(side: int) -> int:
    """The side of TI's kernel for images of `side` pixels: 15 for 224, in proportion, odd, at least 5 (3 below 24)."""
    nearest = 2 * math.floor(15 * side / 224 / 2) + 1
    return max(3 if side < 24 else 5, nearest)


def _is_kernel(kernel: int | str) -> bool:
    if isinstance(kernel, str):
        return kernel == "auto"
    return kernel == 0 or (kernel > 0 and kernel % 2 == 1)
