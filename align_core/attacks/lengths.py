"""The ball of an attack: which radii and steps make sense, and how they are written. Nothing here imports torch."""

import math

from align_core.errors import InputError
from align_core.settings import described

NORMS = ("linf", "l2")
"""The norms in which the ball may be measured."""

_SMALLEST_EPS = 1 / 255 - 1e-9
_LITTLE = 0.05  # of a level, which nobody misses: 0.0314, written for 8/255, is 8.007/255


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


def _as_levels(eps: float) -> str:
    """The radius of the l-infinity ball as messages write it: `8/255`, or such as `7.905/255`."""
    return f"{levels_of(eps)}/255" if _is_whole(eps) else f"{eps * 255:.6g}/255"


def ball_named(eps: float, norm: str) -> str:
    """The radius of a ball as messages name it, with the number that was written where it is not of whole levels."""
    if norm == "l2":
        return f"{eps:.4g}"
    return _as_levels(eps) if _is_whole(eps) else f"{_as_levels(eps)} (eps {eps:g})"


def is_same_ball(one: tuple[float, str], other: tuple[float, str]) -> bool:
    """Whether images of 8 bits may lie equally far away in two balls, each a radius and its norm."""
    (eps, norm), (other_eps, other_norm) = one, other
    levels = levels_of if norm == "linf" else square_levels_of
    return norm == other_norm and levels(eps) == levels(other_eps)


def lost_to_8_bits(eps: float, norm: str) -> str | None:
    """What a user should know of a radius of which images of 8 bits use a part alone; None where it is all of use."""
    levels = levels_of(eps)
    if norm == "l2" or eps * 255 - levels < _LITTLE:
        return None
    nearest = round(eps * 255)
    mend = f"; `eps: {nearest}/255` permits {nearest}" if nearest > levels else ""
    return (
        f"eps {eps:g} is {_as_levels(eps)}; images are stored with 8 bits, so that they change by at most "
        f"{levels}/255{mend}"
    )


def _is_whole(eps: float) -> bool:
    return abs(eps * 255 - levels_of(eps)) <= 1e-4


def square_levels_of(eps: float) -> int:
    """The squared radius of the l2 ball, in squared 8-bit levels, with the same tolerance: no image is further away."""
    return int((eps * 255 + 1e-4) ** 2)
