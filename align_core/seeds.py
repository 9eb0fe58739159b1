"""Figures over several training seeds: their mean, their spread, and intervals over images, over both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_core.transfer import NO_WIDTH


@dataclass(frozen=True)
class OverSeeds:
    """A rate or a gain that was measured with several training seeds, in percent or points.

    Args:
        value: the mean over the seeds.
        spread: the standard deviation between the seeds; of the sample, with S - 1 in the denominator.
        low, high: the 95 % interval over images, for these very seeds.
        both_low, both_high: the 95 % interval over other images and other seeds.
        p_value: of the two-sided t-test, over images and seeds, that the value is 0. None where the value is not 0 and
            varies neither between seeds nor between resamples, as that of a single image.
    """

    value: float
    spread: float
    low: float
    high: float
    both_low: float
    both_high: float
    p_value: float | None


def over_seeds(
    values_S: Sequence[float], draws_SR: npt.NDArray[np.float64], limits_S: Sequence[tuple[float, float]]
) -> OverSeeds:
    """Combines the figures of S seeds.

    The variance of the mean over other images and other seeds is that between the seeds, divided by S, plus that over
    images, and the interval is Student's with S - 1 degrees of freedom. What seeds and images do together is in both
    terms, so that the interval is rather too wide than too narrow; with 3 seeds its half is 4.3 standard errors.

    Where nothing varies between resamples, as at a rate of 0, a percentile interval has no width. The mean of the
    limits that each seed has by itself stands for it, and for the interval over both where seeds do not vary either.

    Args:
        values_S: the figure of each seed, on all images.
        draws_SR: the figure of each seed in each of R resamples of the images, which are the same for all seeds, as
            `transfer.resampled_means` returns them.
        limits_S: the interval of each seed's figure over images, which has a width also where draws have none.

    Raises ValueError for fewer than two seeds, or draws of another number of them.
    """
    from scipy import stats  # slow to import, and needed where there are several seeds alone

    seeds = len(values_S)
    if seeds < 2 or draws_SR.ndim != 2 or len(draws_SR) != seeds:
        raise ValueError(f"{seeds} figures and draws {draws_SR.shape}: give draws [S, R] for at least two seeds")
    value, spread = float(np.mean(values_S)), float(np.std(values_S, ddof=1))
    means_R = draws_SR.mean(axis=0)
    low, high = map(float, np.quantile(means_R, [0.025, 0.975]))
    if high - low < NO_WIDTH:
        low, high = map(float, np.mean(limits_S, axis=0))
    error = float(np.sqrt(spread**2 / seeds + means_R.var(ddof=1)))
    if error < NO_WIDTH:
        return OverSeeds(value, spread, low, high, low, high, 1.0 if value == 0 else None)
    half = float(stats.t.ppf(0.975, seeds - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(value) / error, seeds - 1))
    return OverSeeds(value, spread, low, high, value - half, value + half, p_value)
