"""The common corruptions there are, and how strong they are. Nothing here imports torch.

They are from Hendrycks and Dietterich (ICLR 2019, 1903.12261). Severities are those of the scripts that made CIFAR-10-C
and ImageNet-C, the former for images of at most 64 pixels. What needs pictures of frost, or a library for motion blur,
is left out.
"""

from collections.abc import Mapping
from typing import NamedTuple

from align_core.bounds import nearest_of
from align_core.errors import InputError

SEVERITIES = (1, 2, 3, 4, 5)
_LARGEST_SMALL_SIDE = 64

Strength = float | tuple[float, float]


class Corruption(NamedTuple):
    """One corruption of images: a name in `CORRUPTIONS`, and a severity from 1 to 5."""

    name: str
    severity: int

    def __str__(self) -> str:
        return f"{self.name}-{self.severity}"


class Known(NamedTuple):
    """What a corruption does, and its strength at each severity, on small and on large images.

    Attributes:
        what: in words, with the meaning of the strength.
        small, large: strengths at the severities 1 to 5.
        draws: whether it draws random numbers.
        needs_colour: whether it leaves grey images as they are.
    """

    what: str
    small: tuple[Strength, ...]
    large: tuple[Strength, ...]
    draws: bool = False
    needs_colour: bool = False


CORRUPTIONS: Mapping[str, Known] = {
    "gaussian_noise": Known(
        "normal noise of this standard deviation", (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38), True
    ),
    "shot_noise": Known(
        "Poisson noise of light: so many photons make white", (500, 250, 100, 75, 50), (60, 25, 12, 5, 3), True
    ),
    "impulse_noise": Known(
        "this share of the values becomes black or white",
        (0.01, 0.02, 0.03, 0.05, 0.07),
        (0.03, 0.06, 0.09, 0.17, 0.27),
        True,
    ),
    "gaussian_blur": Known("a normal kernel of this width in pixels", (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "brightness": Known(
        "this is added to the value of hue, saturation and value",
        (0.05, 0.1, 0.15, 0.2, 0.3),
        (0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": Known(
        "the distance from each channel's mean shrinks to this share",
        (0.75, 0.5, 0.4, 0.3, 0.15),
        (0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "saturate": Known(
        "the saturation is multiplied by the first number, and the second is added",
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        needs_colour=True,
    ),
    "pixelate": Known(
        "the image shrinks to this share of its side, and grows again",
        (0.95, 0.9, 0.85, 0.75, 0.65),
        (0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg": Known("the image is stored as JPEG of this quality", (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
"""Name -> the corruption. A new one is an entry here and a function of its name."""


def check_corruption(name: str, severity: int) -> None:
    """Raises InputError for a corruption or a severity that there is not."""
    if name not in CORRUPTIONS:
        raise InputError(f"there is no corruption {name!r}; {nearest_of(name, CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise InputError(f"severities are 1, 2, 3, 4 and 5, not {severity!r}")


def strength(corruption: Corruption, side: int) -> Strength:
    """How strong a corruption is on images whose longer side is so many pixels."""
    known = CORRUPTIONS[corruption.name]
    return (known.small if side <= _LARGEST_SMALL_SIDE else known.large)[corruption.severity - 1]
