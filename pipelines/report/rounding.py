"""How the figures of the tables are rounded."""

import math


def figure(value: float | None) -> float | None:
    """Rounds to four decimals, which is finer than any interval and hides the last bits that differ between machines.

    Adding 0.0 turns a negative zero into zero.
    """
    return None if value is None else round(value, 4) + 0.0


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign; zero is positive, also where rounding makes it."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def significant(value: float | None) -> float | None:
    """Rounds to six significant digits, for figures that may be far smaller than four decimals can show; None for NaN.

    Adding 0.0 turns a negative zero into zero.
    """
    return None if value is None or math.isnan(value) else float(f"{value:.6g}") + 0.0
