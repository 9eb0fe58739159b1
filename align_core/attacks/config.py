"""A fully specified way of crafting: the settings of the parts, and the named methods as presets of them."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

PRESETS: dict[str, dict[str, Any]] = {
    "fgsm": {"steps": 1},  # Goodfellow, Shlens and Szegedy 2015
    "pgd": {"random_start": True},  # Madry et al. 2018
    "mi": {"momentum": 1.0},  # Dong et al. 2018
    "ni": {"momentum": 1.0, "nesterov": True},  # Lin et al. 2020
    "di": {"momentum": 1.0, "diversity": 0.5},  # Xie et al. 2019, on MI
    "ti": {"momentum": 1.0, "kernel": 5},  # Dong et al. 2019, on MI
    "sini": {"momentum": 1.0, "nesterov": True, "copies": 5},  # Lin et al. 2020
    "vmi": {"momentum": 1.0, "neighbours": 20},  # Wang and He 2021
    "vni": {"momentum": 1.0, "nesterov": True, "neighbours": 20},  # Wang and He 2021
}


OBJECTIVES = ("cross_entropy", "margin")
"""What can be climbed: the functions of `objectives`."""

# Stands for what the method's preset says; it is replaced when the attack is made.
_OF_METHOD: Any = None


def pixel_fraction(written: str | float) -> float:
    """`4/255`, `0.5/255` or a number, as a float. Raises ValueError."""
    try:
        above, slash, below = written.partition("/") if isinstance(written, str) else (written, "", "")
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ArithmeticError, TypeError) as problem:
        raise ValueError(f"{written!r} is not a pixel fraction such as 4/255") from problem


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """An attack in the l-infinity ball, untargeted. A setting that is not given, or is None, is the method's preset.

    Every setting has its value once the attack is made. Raises ValueError for settings that make no attack.

    Args:
        method: a name in PRESETS.
        eps, step: pixel fractions: the ball's radius, and the length of a step (eps for `fgsm`, else eps / 4).
        steps: number of steps.
        objective: what is climbed: `cross_entropy`, or `margin` (largest other logit minus the label's).
        random_start: start from a uniform point of the ball.
        momentum: decay of the accumulated gradient; 0 for none.
        nesterov: take the gradient where the momentum leads (NI).
        diversity: probability that an image is resized and padded (DI); 0 for never.
        diversity_size: smallest side of the resized image, as a share of the side.
        kernel: side of the Gaussian that smooths the gradient (TI), odd; 0 for none.
        copies: number of copies scaled by 1, 1/2, 1/4 ... whose gradients are averaged (SI).
        neighbours: samples of variance tuning (VMI, VNI); 0 for none.
        neighbourhood: half side of the cube that they are drawn from, in units of eps.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

    method: str
    eps: float
    step: float = _OF_METHOD
    steps: int = _OF_METHOD
    objective: str = "cross_entropy"
    random_start: bool = _OF_METHOD
    momentum: float = _OF_METHOD
    nesterov: bool = _OF_METHOD
    diversity: float = _OF_METHOD
    diversity_size: float = 0.9
    kernel: int = _OF_METHOD
    copies: int = _OF_METHOD
    neighbours: int = _OF_METHOD
    neighbourhood: float = 1.5

    def __post_init__(self) -> None:
        self._check_written()
        for name, value in self._preset().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # the class is frozen: after this, nothing changes
        self._check_complete()

    def _check_written(self) -> None:
        """What can be checked, and has to be, before the preset fills in the rest."""
        if self.method not in PRESETS:
            raise ValueError(f"there is no method {self.method!r}; there are {', '.join(PRESETS)}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"there is no objective {self.objective!r}; there are {', '.join(OBJECTIVES)}")
        if not 1 / 255 - 1e-9 <= self.eps <= 1:
            mend = f": did you mean {self.eps:g}/255?" if self.eps > 1 else ""
            raise ValueError(f"eps must lie between 1/255 and 1, in pixel fractions, and is {self.eps:g}{mend}")

    def _check_complete(self) -> None:
        bounds = [
            ("steps", self.steps >= 1, "at least 1"),
            ("steps", self.method != "fgsm" or self.steps == 1, "1 for fgsm; pgd is its iterated form"),
            ("momentum", self.momentum >= 0, "0 or more"),
            ("nesterov", not self.nesterov or self.momentum > 0, "false where there is no momentum"),
            ("diversity", 0 <= self.diversity <= 1, "a probability"),
            ("diversity_size", 0 < self.diversity_size <= 1, "above 0 and not above 1"),
            ("kernel", self.kernel == 0 or (self.kernel > 0 and self.kernel % 2), "odd, or 0"),
            ("copies", self.copies >= 1, "at least 1"),
            ("neighbours", self.neighbours >= 0, "0 or more"),
            ("neighbourhood", self.neighbourhood >= 0, "0 or more"),
        ]
        if not 0 < self.step <= 1:
            raise ValueError(f"step must lie above 0 and not above 1, in pixel fractions, and is {self.step:g}")
        for name, holds, wanted in bounds:
            if not holds:
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)}")

    def _preset(self) -> dict[str, Any]:
        """The method's value of every setting that it decides."""
        return {
            "step": self.eps if self.method == "fgsm" else self.eps / 4,
            "steps": 10,
            "random_start": False,
            "momentum": 0.0,
            "nesterov": False,
            "diversity": 0.0,
            "kernel": 0,
            "copies": 1,
            "neighbours": 0,
            **PRESETS[self.method],
        }

    @property
    def gradients(self) -> int:
        """How many gradients of the surrogate an image costs."""
        return self.copies * (self.steps + self.neighbours * (self.steps - 1))

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the result: all but the method's name, which stands for its preset."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "method"}
