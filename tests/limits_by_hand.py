"""The limits of means over targets, from formulas and packages that are not the project's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from statsmodels.stats.proportion import proportion_confint

Flags = npt.NDArray[np.bool_]


def newcombe(treated: Any, baseline: Any) -> tuple[float, float]:
    """Newcombe's method 10, written from his formulas with the Wilson limits of statsmodels; in points."""
    n, a, b = len(treated), int((treated & baseline).sum()), int((treated & ~baseline).sum())
    c = int((~treated & baseline).sum())
    d = n - a - b - c
    product_of_margins = (a + b) * (c + d) * (a + c) * (b + d)
    numerator = a * d - b * c
    phi = (max(numerator - n / 2, 0) if numerator > 0 else numerator) / np.sqrt(product_of_margins or 1)
    (l1, u1), (l2, u2) = (proportion_confint(int(x.sum()), n, method="wilson") for x in (treated, baseline))
    p1, p2 = treated.mean(), baseline.mean()
    below = np.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    above = np.sqrt((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2)
    return 100 * (p1 - p2 - below), 100 * (p1 - p2 + above)


def limits_of_rate(targets: Sequence[tuple[Flags, Flags]], drawn: Any) -> tuple[float, float]:
    """The limits of a mean rate: (which images count, which are wrong) of each target, and the rates of resamples.

    Of one target, or where fewer than six images are wrong, or right, on any target: the mean of Wilson's.
    """
    targets = [(count, wrong) for count, wrong in targets if count.any()]
    few = min(sum(np.any([count & (wrong == kind) for count, wrong in targets], axis=0)) for kind in (True, False)) < 6
    if few or len(targets) == 1:
        alone = [proportion_confint(int(w[c].sum()), int(c.sum()), method="wilson") for c, w in targets]
        return tuple(100 * np.mean(alone, axis=0))
    return tuple(np.nanpercentile(drawn, [2.5, 97.5]))


def limits_of_gain(targets: Sequence[tuple[Flags, Flags, Flags]], drawn: Any) -> tuple[float, float]:
    """The limits of a mean gain, likewise: (which images count, which are wrong, which were before) of each target.

    Of one target, or where fewer than six images differ on any: the mean of Newcombe's.
    """
    targets = [own for own in targets if own[0].any()]
    differing = np.any([count & (wrong != before) for count, wrong, before in targets], axis=0).sum()
    if differing < 6 or len(targets) == 1:
        return tuple(np.mean([newcombe(wrong[count], before[count]) for count, wrong, before in targets], axis=0))
    return tuple(np.nanpercentile(drawn, [2.5, 97.5]))
