"""The settings of an attack whose code is not ours: one of another package, or the user's own callable.

Nothing here imports torch or these packages.
"""

import re
from copy import copy
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

from align_core.attacks.config import TOWARDS
from align_core.attacks.lengths import NORMS, check_lengths, check_radius, pixel_fraction
from align_core.errors import InputError
from align_core.settings import Settings

PACKAGES = {"torchattack": "torchattack", "autoattack": "pyautoattack"}
"""The kinds of attacks that come from another package, with the package's name; the extras have those of the kinds."""

_METHODS = {
    "torchattack": (re.compile(r"\w+"), "torchattack:NAME"),
    "autoattack": (
        re.compile("standard|plus|rand|apgd-ce|apgd-dlr|apgd-t|fab|fab-t|square"),
        "autoattack:VERSION, which is standard, plus or rand, or one of its parts: apgd-ce, apgd-dlr, apgd-t, fab, "
        "fab-t, square",
    ),
    "python": (re.compile(r"[^:]+:[^:]+"), "python:module:callable"),
}
_FORMS = "torchattack:NAME, autoattack:VERSION or python:module:callable"
# The default of the step, which eps and steps decide. It is replaced when the settings are made.
_OF_EPS: Any = None
_TAKEN = ("alpha", "device", "eps", "model", "normalize", "step", "steps", "targeted", "wanted_B")


def is_foreign(method: Any) -> bool:
    """Whether a method names an attack whose code is not ours: `torchattack:NAME`, `python:module:callable`, ..."""
    return isinstance(method, str) and method.partition(":")[0] in _METHODS and ":" in method


@dataclass(frozen=True, kw_only=True)
class ForeignConfig(Settings):
    """An attack whose code is not ours, within a ball around the image. See `align_core.attacks.foreign`.

    It answers to the same questions as an `AttackConfig`. Raises ValueError for values out of range.

    Args:
        method: `torchattack:NAME`, an attack of the package torchattack; `autoattack:standard`, AutoAttack, or another
            version or part of it; or `python:module:callable`.
        eps: radius of the ball, as in `AttackConfig`. Text such as "4/255" is turned into a number, as in `step`.
        step: length of a step, in the units of eps; by default eps / steps. torchattack calls it `alpha`.
        steps: number of steps.
        norm: of the ball: `linf` or `l2`. The images that the attack returns are checked to lie in it.
        towards: as in `AttackConfig`: `away` from the label, or how the class to lead to is found.
        args: further keyword arguments of the attack.
    """

    method: str
    eps: float
    step: float = _OF_EPS
    steps: int = 10
    norm: str = "linf"
    towards: str = "away"
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("eps", "step"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, pixel_fraction(getattr(self, name)))
        super().__post_init__()
        pattern, form = _METHODS.get(self.kind, (None, _FORMS))
        if pattern is None or not pattern.fullmatch(self.name):
            raise ValueError(f"method must be written as {form}, not {self.method!r}")
        wholes = [
            ("steps", 1 <= self.steps <= 100_000, "from 1 to 100,000"),
            ("norm", self.norm in NORMS, f"one of {', '.join(NORMS)}"),
            ("towards", self.towards in ("away", *TOWARDS), f"one of away, {', '.join(TOWARDS)}"),
        ]
        for key, holds, wanted in wholes:
            if not holds:
                raise ValueError(f"{key} must be {wanted}, not {getattr(self, key)}")
        if self.step is None:
            object.__setattr__(self, "step", self.eps / self.steps)
        for key in self.args:
            if not isinstance(key, str) or key in _TAKEN:
                raise ValueError(f"args.{key}: eps, step, steps and towards are keys beside args, and decide this")
        check_lengths(self.eps, self.step, self.norm)

    @property
    def kind(self) -> str:
        """Whose code it is: one of `PACKAGES`, or `python`, a callable of the user's."""
        return self.method.partition(":")[0]

    @property
    def name(self) -> str:
        """The method without its kind: a name in the package, or `module:callable`."""
        return self.method.partition(":")[2]

    @property
    def has_own_steps(self) -> bool:
        """Whether the attack has steps of its own, so that `steps` and `step` say nothing: AutoAttack does."""
        return self.kind == "autoattack"

    @property
    def is_targeted(self) -> bool:
        """Whether the attack leads towards a class, rather than away from the label."""
        return self.towards != "away"

    @property
    def needs_others(self) -> bool:
        """Whether the attack is given other images of the image set: never."""
        return False

    @property
    def gradients(self) -> None:
        """None: how many gradients an image costs is only known once it is measured."""
        return None

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the adversarial images, with the version of the package whose attack it is.

        The code of a user's callable decides too; who reads the experiment adds it. Raises InputError where the package
        is not installed.
        """
        settings = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return settings | ({"version": package_version(self.kind)} if self.kind in PACKAGES else {})

    def for_images(self, channels: int, side: int) -> Self:
        """The attack on square images of this size. Raises InputError for a radius that does not suit them."""
        check_radius(self.eps, self.norm, channels, side)
        return copy(self)


def package_version(kind: str) -> str:
    """The version of the package of a kind of attacks, without importing it. Raises InputError where there is none."""
    try:
        return version(PACKAGES[kind])
    except PackageNotFoundError:
        raise InputError(
            f"the package {PACKAGES[kind]} is not installed; `pip install '.[{kind}]'` in the folder of Witness's "
            "repository installs it"
        ) from None
