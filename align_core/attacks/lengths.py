"""The ball of an attack: which radii and steps make sense, and how they are written. Nothing here imports torch."""

import math

from align_core.errors import InputError
from align_core.settings import described

NORMS = ("linf", "l2")
"""The norms in which the ball may be measured."""

_SMALLEST_EPS = 1 / 255 - 1e-9


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


def step_of(eps: float, ratio: float, norm: str) -> float:
    """A step of `ratio` times eps, but at most 2 eps, nor longer than `check_lengths` permits.

    A step of 2 eps crosses the ball: in l-infinity a longer one leads to the same image.
    """
    return min(eps * min(ratio, 2.0), longest_step(eps, norm))


def longest_step(eps: float, norm: str) -> float:
    """The longest step that may be asked for: the pixel range in l-infinity, and 2 eps in the l2 ball."""
    return 1.0 if norm == "linf" else 2 * eps


def check_lengths(eps: float, step: float, norm: str) -> None:
    """Raises ValueError for a radius that is out of range, or a step that is too long for it."""
    if norm == "linf" and not _SMALLEST_EPS <= eps <= 1:
        mend = f": did you mean {eps:g}/255?" if eps > 1 else ""
        raise ValueError(f"eps must lie between 1/255 and 1, in pixel fractions, and is {eps:g}{mend}")
    if norm == "l2" and not _SMALLEST_EPS <= eps <= 100_000:
        raise ValueError(f"eps must be at least 1/255, as a Euclidean length, and is {eps:g}")
    longest = longest_step(eps, norm)
    if not 0 < step <= longest:
        raise ValueError(f"step must lie above 0 and not above {longest:g}, in the units of eps, and is {step:g}")


def check_radius(eps: float, norm: str, channels: int, side: int) -> None:
    """Raises InputError where the l2 ball reaches every image with so many values."""
    largest = math.sqrt(channels * side * side)
    if norm == "l2" and eps > largest:
        raise InputError(
            f"eps must be at most {largest:.4g} in the l2 ball for images of {channels} x {side} x {side} values, "
            f"which reaches every image, and is {eps:g}"
        )


def levels_of(eps: float) -> int:
    """The radius of the l-infinity ball in whole 8-bit levels, such as 8 for 8/255.

    The tolerance is for an eps that was rounded when it was written, such as 0.0313725, just below 8/255.
    """
    return int(eps * 255 + 1e-4)


def square_levels_of(eps: float) -> int:
    """The squared radius of the l2 ball, in squared 8-bit levels, with the same tolerance: no image is further away."""
    return int((eps * 255 + 1e-4) ** 2)
