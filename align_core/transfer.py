"""Transfer statistics: outcomes in, rates with intervals and paired gains out. All in percent or points.

A rate is over the images that both the original source and the target classify correctly when clean: the same images
for every surrogate and attack, so that two surrogates differ in nothing but their perturbations, and are compared
pairwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
RESAMPLES = 10_000
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; all None where there is nothing to estimate from."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Gain:
    """A paired difference in points, its 95 % interval, and the two-sided exact McNemar p-value where it applies."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None


NO_GAIN = Gain(None, None, None, None)


def wilson(hits: int, n: int) -> Interval:
    """A share in percent with its Wilson score interval (Wilson 1927; Newcombe 1998a, method 3)."""
    if n == 0:
        return Interval(None, None, None)
    low, high = _wilson(hits, n)
    return Interval(100 * hits / n, 100 * low, 100 * high)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    share, z2 = hits / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the formula is exactly 0 or 1; floats are not.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def paired_gain(treated: Flags, baseline: Flags) -> Gain:
    """How much more often `treated` is true than `baseline` on the same n images.

    Interval: Newcombe's method 10 for paired proportions (Statistics in Medicine 17, 2635-2650, 1998): Wilson limits of
    both shares, combined with a continuity-corrected correlation. p-value: exact McNemar, uncorrected.
    """
    n = len(treated)
    if n == 0:
        return NO_GAIN
    both = int(np.sum(treated & baseline))
    only_treated = int(np.sum(treated & ~baseline))
    only_baseline = int(np.sum(~treated & baseline))
    low, high = newcombe(both, only_treated, only_baseline, n - both - only_treated - only_baseline)
    difference = (only_treated - only_baseline) / n
    return Gain(100 * difference, 100 * low, 100 * high, mcnemar(only_treated, only_baseline))


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """Newcombe's method 10: the 95 % interval of first share minus second share, as fractions."""
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    margins = first * (n - first) * second * (n - second)
    correlation = 0.0
    if margins:
        covariance = both * neither - only_first * only_second
        corrected = max(covariance - n / 2, 0.0) if covariance > 0 else covariance
        correlation = corrected / math.sqrt(margins)
    p1, p2 = first / n, second / n
    (l1, u1), (l2, u2) = _wilson(first, n), _wilson(second, n)

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))

    return p1 - p2 - half(p1 - l1, u2 - p2), p1 - p2 + half(u1 - p1, p2 - l2)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar: twice the binomial tail of the smaller discordant count at one half, at most 1."""
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    log_choose = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)]
    largest = max(log_choose)
    tail = math.exp(largest - n * math.log(2)) * sum(math.exp(term - largest) for term in log_choose)
    return min(1.0, 2 * tail)


def resampled_counts(n: int, seed: int, resamples: int = RESAMPLES, block: int = 500) -> "list[npt.NDArray[np.uint8]]":
    """How often each of n images is drawn: blocks of [block, n], `resamples` rows in all, one draw for all targets.

    A byte each: nobody is drawn 256 times, and of 50,000 images that is half a gigabyte.
    """
    rng = np.random.default_rng(seed)
    rows = [min(block, resamples - start) for start in range(0, resamples, block)]
    shares = np.full(n, 1 / n)
    return [rng.multinomial(n, shares, size=count).astype(np.uint8) for count in rows]


@dataclass(frozen=True)
class MeanCell:
    """One target's part in a mean row: which images count, what the surrogate did on them, what the baseline did."""

    eligible: Flags
    wrong: Flags
    baseline_wrong: Flags | None


def mean_over_targets(cells: Sequence[MeanCell], counts: "Sequence[npt.NDArray[np.uint8]]") -> tuple[Interval, Gain]:
    """Mean rate and mean gain, targets weighted equally, with percentile intervals from resampled images.

    Args:
        cells: one per target, flags [N] each. A target that no image is eligible for is left out.
        counts: from `resampled_counts`: the same images are drawn for every target.
    """
    cells = [cell for cell in cells if cell.eligible.any()]
    if not cells:
        return Interval(None, None, None), NO_GAIN
    eligible_NT = np.stack([cell.eligible for cell in cells], axis=1)
    wrong_NT = np.stack([cell.eligible & cell.wrong for cell in cells], axis=1)
    rates_R = _resampled_means(wrong_NT, eligible_NT, counts)
    rate = 100 * float(np.mean(wrong_NT.sum(0) / eligible_NT.sum(0)))
    low, high = np.quantile(rates_R, [0.025, 0.975])
    interval = Interval(rate, float(low), float(high))
    if any(cell.baseline_wrong is None for cell in cells):
        return interval, NO_GAIN
    baseline_NT = np.stack([cell.eligible & np.asarray(cell.baseline_wrong) for cell in cells], axis=1)
    gain = 100 * float(np.mean((wrong_NT.sum(0) - baseline_NT.sum(0).astype(int)) / eligible_NT.sum(0)))
    low, high = np.quantile(rates_R - _resampled_means(baseline_NT, eligible_NT, counts), [0.025, 0.975])
    return interval, Gain(gain, float(low), float(high), None)


def _resampled_means(
    hits_NT: Flags, eligible_NT: Flags, counts: "Sequence[npt.NDArray[np.uint8]]"
) -> npt.NDArray[np.float64]:
    hits, eligible = hits_NT.astype(np.float32), eligible_NT.astype(np.float32)
    rates = []
    for block_RN in counts:
        drawn_RN = block_RN.astype(np.float32)
        size_RT = drawn_RN @ eligible  # whole numbers below 2**24: exact in float32
        share_RT = (drawn_RN @ hits).astype(np.float64) / np.maximum(size_RT, 1)
        targets_R = np.count_nonzero(size_RT, axis=1)
        some = targets_R > 0  # the others drew no image that counts for any target
        rates.append(100 * share_RT[some].sum(axis=1) / targets_R[some])
    return np.concatenate(rates)


def relation(target: Mapping[str, str], source: Mapping[str, str]) -> str:
    """same_architecture, same_family or cross_family, from the `architecture` and `family` of two models."""
    if target["architecture"] == source["architecture"]:
        return "same_architecture"
    return "same_family" if target["family"] == source["family"] else "cross_family"
