"""Transfer statistics: rates with intervals, and paired gains, from the outcomes of single images.

All rates are in percent, and all gains in percentage points. A rate is taken over the images that both the original
source and the target classify correctly before the attack. These are the same images for every surrogate and attack, so
that surrogates differ in nothing but their perturbations and can be compared image by image.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
"""One truth value per image."""
Counts = npt.NDArray[np.uint8]
"""How often each of n images is drawn in each of some resamples, [resamples, n]."""
RESAMPLES = 10_000
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval, in percent. All three are None where there are no images."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Gain:
    """A paired difference in percentage points with its 95 % confidence interval.

    `p_value` is that of the two-sided exact McNemar test; None for means over targets, where the test does not apply.
    All are None where there are no images or no baseline.
    """

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None


NO_RATE = Interval(None, None, None)
NO_GAIN = Gain(None, None, None, None)
FEW = 6
"""Images: of fewer that all point one way, every percentile interval excludes 0, though a sign test rejects nothing."""
NO_WIDTH = 1e-9
"""Percent or points: what rounding makes of the width of an interval that has none."""


def wilson(hits: int, n: int) -> Interval:
    """A share in percent with its Wilson score interval (Wilson 1927; Newcombe 1998a, method 3).

    Unlike the usual interval from the normal distribution, it stays within 0 and 100 % and covers the true share about
    95 times in 100 even near those ends, where the rates of weak and of strong attacks lie.
    """
    hits, n = _integers(hits, n)
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} are no share")
    if n == 0:
        return NO_RATE
    low, high = _wilson(hits, n)
    return Interval(100 * hits / n, 100 * low, 100 * high)


def _integers(*counts: int) -> tuple[int, ...]:
    """Counts as Python's integers: those of numpy overflow silently. Raises TypeError for what is no whole number."""
    return tuple(map(index, counts))


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """The limits of the Wilson interval as fractions; n must be above 0."""
    share, z2 = hits / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # For 0 or n hits, the limit is exactly 0 or 1, which floating-point arithmetic misses slightly.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def paired_gain(treated: Flags, baseline: Flags) -> Gain:
    """How much more often `treated` is true than `baseline` on the same n images, in percentage points.

    The interval is Newcombe's (see `newcombe`), the p-value that of the exact McNemar test, not corrected for multiple
    comparisons.

    Args:
        treated: bool [n], e.g. whether the target is wrong on the images crafted on the aligned surrogate.
        baseline: bool [n], the same for those crafted on the original source.

    Raises ValueError for other types, or where the two are not of the same images.
    """
    _check_flags(treated=treated, baseline=baseline)
    n = len(treated)
    if n == 0:
        return NO_GAIN
    both = int(np.sum(treated & baseline))
    only_treated = int(np.sum(treated & ~baseline))
    only_baseline = int(np.sum(~treated & baseline))
    low, high = newcombe(both, only_treated, only_baseline, n - both - only_treated - only_baseline)
    difference = (only_treated - only_baseline) / n
    return Gain(100 * difference, 100 * low, 100 * high, mcnemar(only_treated, only_baseline))


def _check_flags(**flags: Flags) -> None:
    """Raises ValueError unless these are bool arrays [n] of one length: of numbers, `~` is no negation."""
    for name, values in flags.items():
        if not isinstance(values, np.ndarray) or (values.size and values.dtype != np.bool_) or values.ndim != 1:
            found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(f"{name} must be a numpy array of bool [n], a value for each image, not {found}")
    if len({len(values) for values in flags.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in flags.items())
        raise ValueError(f"these must be of the same images, in the same order: {lengths}")


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """The 95 % confidence interval of the difference between two paired shares, as fractions: Newcombe's method 10.

    Its source is Newcombe, Statistics in Medicine 17, 2635-2650 (1998). The method combines the Wilson limits of both
    shares with their correlation, which is corrected for continuity. Two surrogates are measured on the same images and
    mostly fool a target on the same ones, so an interval for independent shares would be far too wide. Among paired
    intervals in closed form this one keeps close to 95 % coverage, stays within -1 and 1, and has a positive width even
    where the two surrogates never differ, as happens with few images.

    Args:
        both, only_first, only_second, neither: numbers of pairs with both true, one of them true, or none.

    Raises ValueError where there is no pair, or a negative number of them.
    """
    both, only_first, only_second, neither = _integers(both, only_first, only_second, neither)
    if min(both, only_first, only_second, neither) < 0 or both + only_first + only_second + neither == 0:
        raise ValueError(f"{both}, {only_first}, {only_second} and {neither} are no numbers of at least one pair")
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
    """The p-value of the two-sided exact McNemar test.

    Under the null hypothesis, a pair that differs is as likely to favour one side as the other. The p-value is twice
    the binomial tail of the smaller count, and at most 1. The test is exact because the counts are often small. It is
    computed in logarithms, so that it does not overflow for tens of thousands of pairs.

    Args:
        only_first, only_second: numbers of pairs in which only the first, or only the second, is true.
    """
    only_first, only_second = _integers(only_first, only_second)
    n, k = only_first + only_second, min(only_first, only_second)
    if k < 0:
        raise ValueError(f"{only_first} and {only_second} are no numbers of pairs")
    if n == 0:
        return 1.0
    log_factorial = _log_factorials(1 << n.bit_length())
    log_choose = log_factorial[n] - log_factorial[: k + 1] - log_factorial[n - k : n + 1][::-1]
    largest = float(log_choose.max())
    tail = math.exp(largest - n * math.log(2)) * float(np.exp(log_choose - largest).sum())
    return min(1.0, 2 * tail)


@lru_cache
def _log_factorials(most: int) -> npt.NDArray[np.float64]:
    """The logarithms of 0! to `most`!. A report has thousands of p-values, and needs the same ones for each."""
    return np.array([math.lgamma(number + 1) for number in range(most + 1)])


def resampled_counts(n: int, seed: int, resamples: int = RESAMPLES, block: int = 500) -> Iterator[Counts]:
    """Bootstrap resamples of n images, as the number of times that each image is drawn.

    One set of resamples serves all targets and surrogates, so that they are compared on the same draws. It is made
    block by block, because 10,000 resamples of 50,000 images would take 500 MB; to use it twice, keep a list. The
    counts are uint8, which is ample: they are binomial with mean 1.

    Args:
        n: number of images, and of draws in each resample.
        seed: decides all draws, whatever the block.
        resamples: number of resamples.
        block: resamples per array, which bounds the memory of the computations on it.

    Returns an iterator over uint8 arrays [block, n], the last of which may have fewer rows. Raises ValueError for
    numbers below 1.
    """
    if min(n, resamples, block) < 1:
        raise ValueError(f"n, resamples and block must be at least 1, not {n}, {resamples} and {block}")
    return _draws(n, seed, resamples, block)


def _draws(n: int, seed: int, resamples: int, block: int) -> Iterator[Counts]:
    rng = np.random.default_rng(seed)
    shares = np.full(n, 1 / n)
    for start in range(0, resamples, block):
        yield rng.multinomial(n, shares, size=min(block, resamples - start)).astype(np.uint8)


@dataclass(frozen=True)
class OnTargets:
    """What T targets make of the same N images, crafted on one surrogate, and the groups of targets to average over.

    Attributes:
        eligible: for each target, the images that the source and it classify correctly before the attack, bool [N].
        wrong: for each target, the images that it gets wrong when they are crafted on the surrogate, bool [N].
        groups: positions of the targets of each group. Those for which no image is eligible do not count.
    """

    eligible: Sequence[Flags]
    wrong: Sequence[Flags]
    groups: Sequence[Sequence[int]]


def resampled_means(outcomes: Sequence[OnTargets], counts: Iterable[Counts]) -> Iterator[list[npt.NDArray[np.float64]]]:
    """The mean rate over each group of targets in each of R resamples: the bootstrap of many surrogates in one pass.

    A block of resamples is one matrix product per surrogate over all its targets, which all groups share. Memory beside
    the result is that of one block and of one surrogate's outcomes.

    Args:
        outcomes: of each surrogate.
        counts: resamples from `resampled_counts`.

    Yields, for each surrogate, the rates of each group in percent, float64 [R]. Resamples that hold no eligible image
    of any target of the group are left out. The order of resamples is kept, so that surrogates with the same eligible
    images can be compared draw by draw. Raises ValueError where there are no resamples, or they
    are of another number of images.
    """
    found: list[list[list[npt.NDArray[np.float64]]]] = [[[] for _ in own.groups] for own in outcomes]
    drawn = 0
    for block_RN in counts:
        drawn_RN, drawn = block_RN.astype(np.float32), drawn + len(block_RN)
        known: dict[tuple[int, ...], npt.NDArray[np.float32]] = {}  # surrogates of one source share these arrays
        for own, means in zip(outcomes, found, strict=True):
            key = tuple(map(id, own.eligible))
            if key not in known:
                known[key] = _times(drawn_RN, own.eligible)
            size_RT = known[key]
            hits = [eligible_N & wrong_N for eligible_N, wrong_N in zip(own.eligible, own.wrong, strict=True)]
            share_RT = _times(drawn_RN, hits).astype(np.float64) / np.maximum(size_RT, 1)
            for group, rates in zip(own.groups, means, strict=True):
                kept = [target for target in group if own.eligible[target].any()]
                targets_R = np.count_nonzero(size_RT[:, kept], axis=1)
                some = targets_R > 0  # resamples without an eligible image for any target have no rate
                rates.append(100 * np.take(share_RT, kept, axis=1)[some].sum(axis=1) / targets_R[some])
    if not drawn:
        raise ValueError("there are no resamples, or they were used before: keep a list of them to use them twice")
    return ([np.concatenate(rates) for rates in means] for means in found)


def _times(drawn_RN: npt.NDArray[np.float32], flags: Sequence[Flags]) -> npt.NDArray[np.float32]:
    """How many of the images that are drawn have each of T flags, [R, T]: exact, as integers below 2**24."""
    if any(len(flags_N) != drawn_RN.shape[1] for flags_N in flags):
        raise ValueError(f"the resamples are of {drawn_RN.shape[1]} images, the outcomes of {len(flags[0])}")
    return np.asarray(drawn_RN @ np.stack(flags).astype(np.float32).T)


@dataclass(frozen=True)
class MeanCell:
    """The outcomes of one target, for a mean over targets.

    Attributes:
        eligible: bool [N], the images that the source and this target classify correctly before the attack.
        wrong: bool [N], the images that the target gets wrong when they are crafted on the surrogate.
        baseline_wrong: the same for the baseline surrogate; None where there is no baseline.
    """

    eligible: Flags
    wrong: Flags
    baseline_wrong: Flags | None


def mean_over_targets(cells: Sequence[MeanCell], counts: Iterable[Counts]) -> tuple[Interval, Gain]:
    """The mean rate and the mean gain over targets, which are weighted equally.

    The intervals are percentile bootstrap intervals over images. Targets err on much the same images, so their outcomes
    are not independent; drawing the same images for all of them keeps this dependence. For many surrogates and groups
    of targets, `resampled_means`, `mean_interval` and `mean_gain` do the same in one pass.

    Args:
        cells: one per target. Targets for which no image is eligible are left out.
        counts: resamples from `resampled_counts`.

    Returns the rate and the gain over the baseline; the gain is blank where any target lacks a baseline.
    """
    for cell in cells:
        paired = {} if cell.baseline_wrong is None else {"baseline_wrong": cell.baseline_wrong}
        _check_flags(eligible=cell.eligible, wrong=cell.wrong, **paired)
    cells = [cell for cell in cells if cell.eligible.any()]
    if not cells:
        return NO_RATE, NO_GAIN
    eligible, group = [cell.eligible for cell in cells], [range(len(cells))]
    wrong = [cell.wrong for cell in cells]
    baseline = [cell.baseline_wrong for cell in cells if cell.baseline_wrong is not None]
    sides = [wrong, baseline] if len(baseline) == len(cells) else [wrong]
    rates = [means[0] for means in resampled_means([OnTargets(eligible, side, group) for side in sides], counts)]
    interval = mean_interval(eligible, wrong, rates[0])
    if len(sides) == 1:
        return interval, NO_GAIN
    return interval, mean_gain(eligible, wrong, baseline, rates[0] - rates[1])


def mean_interval(eligible: Sequence[Flags], wrong: Sequence[Flags], rates_R: npt.NDArray[np.float64]) -> Interval:
    """The mean rate over targets, with the interval of its resamples; blank where no image is eligible.

    Of a single target the interval is Wilson's, as that of the target itself. Where fewer than FEW images are wrong on
    any target, or right on any, as at a rate of 0, it is the mean of Wilson's limits over the targets.

    Args:
        eligible, wrong: of each target, bool [N], as in `OnTargets`.
        rates_R: the mean rate in each resample, from `resampled_means`.
    """
    counted = list(_counting(eligible, wrong))
    if not counted:
        return NO_RATE
    shares = [(eligible_N & wrong_N).sum() / eligible_N.sum() for eligible_N, wrong_N in counted]
    wrong_images = _images_of(eligible_N & wrong_N for eligible_N, wrong_N in counted)
    right_images = _images_of(eligible_N & ~wrong_N for eligible_N, wrong_N in counted)
    alone = (wilson(int((eligible_N & wrong_N).sum()), int(eligible_N.sum())) for eligible_N, wrong_N in counted)
    has_enough = len(counted) > 1 and min(wrong_images, right_images) >= FEW
    return Interval(100 * float(np.mean(shares)), *_limits_of_mean(rates_R if has_enough else None, alone))


def mean_gain(
    eligible: Sequence[Flags], wrong: Sequence[Flags], baseline_wrong: Sequence[Flags], gains_R: npt.NDArray[np.float64]
) -> Gain:
    """The mean gain over targets, with the interval of its resamples; blank where no image is eligible.

    Of a single target the interval is Newcombe's. Where both differ on fewer than FEW images, it is the mean of
    Newcombe's limits over the targets.

    Args:
        eligible, wrong, baseline_wrong: of each target, bool [N], as in `MeanCell`.
        gains_R: the difference of both mean rates in each resample.
    """
    counted = list(_counting(eligible, wrong, baseline_wrong))
    if not counted:
        return NO_GAIN
    gains = [
        (int((eligible_N & wrong_N).sum()) - int((eligible_N & baseline_N).sum())) / eligible_N.sum()
        for eligible_N, wrong_N, baseline_N in counted
    ]
    differing = _images_of(eligible_N & (wrong_N ^ baseline_N) for eligible_N, wrong_N, baseline_N in counted)
    alone = (paired_gain(wrong_N[eligible_N], baseline_N[eligible_N]) for eligible_N, wrong_N, baseline_N in counted)
    has_enough = len(counted) > 1 and differing >= FEW
    return Gain(100 * float(np.mean(gains)), *_limits_of_mean(gains_R if has_enough else None, alone), None)


def _images_of(flags: Iterable[Flags]) -> int:
    """Number of images for which any target's flag is set."""
    return int(np.logical_or.reduce(list(flags)).sum())


def _limits_of_mean(draws_R: npt.NDArray[np.float64] | None, alone: Iterable[Interval | Gain]) -> tuple[float, float]:
    """Percentiles of a mean's draws, where there are any that vary; else the means of the targets' own limits.

    These are taken lazily: a report has some ten thousand means, and next to none needs them.
    """
    if draws_R is not None and float(np.ptp(draws_R)) > NO_WIDTH:
        low, high = np.quantile(draws_R, [0.025, 0.975])
        return float(low), float(high)
    limits = [(own.low, own.high) for own in alone]
    return float(np.mean([low for low, _ in limits])), float(np.mean([high for _, high in limits]))


def _counting(*flags: Sequence[Flags]) -> Iterator[tuple[Flags, ...]]:
    """The flags of each target, the first of which say what is eligible, for targets that have any such image."""
    return (own for own in zip(*flags, strict=True) if own[0].any())


def relation(target: Mapping[str, str], source: Mapping[str, str]) -> str:
    """How a target is related to the source: `same_architecture`, `same_family` or `cross_family`.

    Args:
        target, source: `architecture` and `family` of each model (see `ModelConfig`).
    """
    if target["architecture"] == source["architecture"]:
        return "same_architecture"
    return "same_family" if target["family"] == source["family"] else "cross_family"
