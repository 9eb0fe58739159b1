"""P-values corrected for the number of comparisons."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction, in the order given (Holm, Scandinavian Journal of Statistics 6, 1979).

    Rejecting those that are at most a level keeps the chance of any false rejection below that level, whatever the
    dependence between the tests. The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes
    smaller than one before it, or larger than 1.

    Raises ValueError for numbers that are no p-values.
    """
    if not all(0 <= value <= 1 for value in p_values):
        raise ValueError("p-values lie between 0 and 1")
    found = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        found[index] = largest
    return found
