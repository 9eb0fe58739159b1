"""The settings of an attack, and the published methods as presets of them.

Nothing here imports torch, so that commands which only read settings start fast.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from align_core.errors import InputError
from align_core.settings import Settings, described

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
"""The settings in which each method differs from plain iterated gradient signs; `_preset` below has the others.

A new method is a line here and one in `DESCRIPTIONS`.
"""

DESCRIPTIONS: dict[str, str] = {
    "fgsm": "one step of size eps along the sign of the gradient (Goodfellow, Shlens and Szegedy 2015)",
    "pgd": "iterated gradient signs from a random start in the eps-ball (Madry et al. 2018)",
    "mi": "MI-FGSM: iterated gradient signs with momentum (Dong et al. 2018)",
    "ni": "NI-FGSM: MI with the gradient taken where the momentum leads, Nesterov's look-ahead (Lin et al. 2020)",
    "di": "DI-FGSM: MI on images that are randomly shrunk and padded (Xie et al. 2019)",
    "ti": "TI-FGSM: MI with the gradient smoothed by a Gaussian kernel (Dong et al. 2019)",
    "sini": "SI-NI-FGSM: NI with the gradient averaged over copies scaled by 1, 1/2, 1/4 ... (Lin et al. 2020)",
    "vmi": "VMI-FGSM: MI with the gradient tuned by those of random neighbours (Wang and He 2021)",
    "vni": "VNI-FGSM: NI with the gradient tuned by those of random neighbours (Wang and He 2021)",
}
"""What each preset does, in one line, and the paper that introduced it. `witness list attacks` prints it."""

OBJECTIVES = ("cross_entropy", "margin")
"""What an attack can maximise: names of functions in `objectives`."""

_MOST_GRADIENTS = 10_000_000

# The default of settings that the method's preset decides. It is replaced when the attack is made.
_OF_METHOD: Any = None


def pixel_fraction(written: str | float) -> float:
    """Reads a fraction of the pixel range, such as `4/255` or `0.5/255`, or a number, as a float.

    Raises ValueError for anything else.
    """
    try:
        if isinstance(written, bool):
            raise TypeError
        above, slash, below = written.partition("/") if isinstance(written, str) else (written, "", "")
        fraction = float(above) / (float(below) if slash else 1.0)
        if not math.isfinite(fraction):
            raise ValueError
        return fraction
    except (ValueError, ArithmeticError, TypeError):
        shown = f"{written!r}" if isinstance(written, str | float) else described(written)
        raise ValueError(f"{shown} is not a pixel fraction such as 4/255") from None


@dataclass(frozen=True, kw_only=True)
class AttackConfig(Settings):
    """A fully specified, untargeted attack within an l-infinity ball.

    A setting that is not given, or is None, takes the value of the method's preset, so that every setting has a value
    once the attack is made. Raises ValueError for values out of range.

    Args:
        method: a name in `PRESETS`.
        eps: radius of the ball, as a fraction of the pixel range: 4/255, for example. Text such as "4/255" is turned
            into a number here, as in `step`.
        step: length of a step, as a fraction of the pixel range. By default eps for `fgsm`, and eps / 4 for the others.
        steps: number of steps.
        objective: what the attack maximises: `cross_entropy`, or `margin` (largest other logit minus the label's).
        random_start: whether the attack starts at a uniformly random point of the ball instead of the image.
        momentum: decay of the accumulated gradient; 0 turns the momentum off.
        nesterov: whether the gradient is taken at the point to which the momentum leads (NI).
        diversity: probability that an image is resized and padded before a gradient (DI); 0 turns this off.
        diversity_size: smallest side of the resized image, as a share of the image's side.
        kernel: side in pixels of the Gaussian that smooths the gradient (TI), odd; 0 turns this off.
        copies: number of copies, scaled by 1, 1/2, 1/4 ..., whose gradients are averaged (SI).
        neighbours: number of random neighbours for variance tuning (VMI, VNI); 0 turns this off.
        neighbourhood: half the side of the cube from which the neighbours are drawn, in units of eps.
    """

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
        for name in ("eps", "step"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, pixel_fraction(getattr(self, name)))
        super().__post_init__()
        self._check_written()
        for name, value in self._preset().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # a frozen dataclass permits no plain assignment, even here
        self._check_complete()

    def _check_written(self) -> None:
        """Checks the settings on which the preset depends, or which have no preset."""
        if self.method not in PRESETS:
            raise ValueError(f"there is no method {self.method!r}; choose from {', '.join(PRESETS)}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"there is no objective {self.objective!r}; choose from {', '.join(OBJECTIVES)}")
        if not 1 / 255 - 1e-9 <= self.eps <= 1:
            mend = f": did you mean {self.eps:g}/255?" if self.eps > 1 else ""
            raise ValueError(f"eps must lie between 1/255 and 1, in pixel fractions, and is {self.eps:g}{mend}")

    def _check_complete(self) -> None:
        """Checks the settings after the preset has filled in those that were not given."""
        bounds = [
            ("steps", 1 <= self.steps <= 100_000, "from 1 to 100,000"),
            ("steps", self.method != "fgsm" or self.steps == 1, "1 for fgsm (pgd is its iterated form)"),
            ("momentum", 0 <= self.momentum <= 10, "from 0 to 10"),
            ("nesterov", not self.nesterov or self.momentum > 0, "false where there is no momentum"),
            ("diversity", 0 <= self.diversity <= 1, "a probability"),
            ("diversity_size", 0 < self.diversity_size <= 1, "above 0 and not above 1"),
            ("kernel", self.kernel == 0 or (self.kernel > 0 and self.kernel % 2), "odd, or 0"),
            ("copies", 1 <= self.copies <= 100, "from 1 to 100: each is half as bright as the one before"),
            ("neighbours", 0 <= self.neighbours <= 10_000, "from 0 to 10,000"),
            ("neighbourhood", 0 <= self.neighbourhood <= 255, "from 0 to 255, in units of eps"),
        ]
        if not 0 < self.step <= 1:
            raise ValueError(f"step must lie above 0 and not above 1, in pixel fractions, and is {self.step:g}")
        for name, holds, wanted in bounds:
            if not holds:
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)}")
        if self.gradients > _MOST_GRADIENTS:
            raise ValueError(
                f"steps, copies and neighbours make {self.gradients:,} gradients per image, more than "
                f"{_MOST_GRADIENTS:,}: no attack would end"
            )

    def _preset(self) -> dict[str, Any]:
        """The method's value of every setting that may be left out: the general default, or its entry in PRESETS."""
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

    def check_kernel(self, side: int) -> None:
        """Raises InputError for a kernel that is more than twice as wide as images of `side` pixels."""
        if self.kernel > 2 * side + 1:
            raise InputError(f"kernel must be at most {2 * side + 1} for images of {side} pixels, not {self.kernel}")

    @property
    def gradients(self) -> int:
        """Number of forward and backward passes through the surrogate that one image costs.

        No neighbours are evaluated at the last step, since only the next step would use their gradients.
        """
        return self.copies * (self.steps + self.neighbours * (self.steps - 1))

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the adversarial images; fingerprints are computed from them.

        The method's name is left out, because the settings of its preset are in their places: the same attack written
        in two ways has one fingerprint.
        """
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "method"}
