"""How the figures of the tables are rounded."""


def figure(value: float | None) -> float | None:
    """Rounds to four decimals, which is finer than any interval and hides the last bits that differ between machines.

    Adding 0.0 turns a negative zero into zero.
    """
    return None if value is None else round(value, 4) + 0.0
