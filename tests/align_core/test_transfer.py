"""The transfer statistics against published examples, scipy, statsmodels and plain loops."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.proportion import proportion_confint

from align_core.transfer import (
    NO_GAIN,
    Interval,
    MeanCell,
    mcnemar,
    mean_over_targets,
    newcombe,
    paired_gain,
    relation,
    resampled_counts,
    wilson,
)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text.replace(" ", "")])


# Wilson


# Newcombe, Statistics in Medicine 17, 857-872 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilson_gives_the_published_limits(hits, n, low, high):
    interval = wilson(hits, n)
    assert interval.value == pytest.approx(100 * hits / n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 101, 1000, 50_000])
def test_wilson_agrees_with_statsmodels_at_every_kind_of_share(n):
    for hits in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        interval = wilson(hits, n)
        expected = 100 * np.array(proportion_confint(hits, n, method="wilson"))
        assert (interval.low, interval.high) == pytest.approx(tuple(expected), rel=1e-9, abs=1e-9)


def test_wilson_stays_within_0_and_100_and_around_its_value_for_every_count():
    for n in (*range(1, 60), 867, 1000):
        for hits in range(n + 1):
            interval = wilson(hits, n)
            assert 0 <= interval.low <= interval.value <= interval.high <= 100


def test_a_share_of_nothing_is_blank():
    assert wilson(0, 0) == Interval(None, None, None)


# Newcombe's method 10


def newcombe_by_other_means(both, only_first, only_second, neither):
    """Newcombe's limits from statsmodels' Wilson limits, numpy's correlation of the pairs, and the law of cosines."""
    counts = [both, only_first, only_second, neither]
    first, second = np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)
    n = len(first)
    phi = 0.0
    if first.std() > 0 and second.std() > 0:
        phi = np.corrcoef(first, second)[0, 1]
        covariance = n**2 * np.cov(first, second, bias=True)[0, 1]
        if phi > 0:
            phi *= np.clip(1 - n / 2 / covariance, 0, None)
    (l1, u1), (l2, u2) = (proportion_confint(x.sum(), n, method="wilson") for x in (first, second))
    p1, p2 = first.mean(), second.mean()

    def third_side(a, b):
        return abs(complex(a, 0) - b * complex(phi, math.sqrt(1 - min(1, phi**2))))

    return p1 - p2 - third_side(p1 - l1, u2 - p2), p1 - p2 + third_side(u1 - p1, p2 - l2)


# Newcombe, Statistics in Medicine 17, 2635-2650 (1998), table III, method 10. It was computed with z = 1.96, hence the
# tolerance of the test. The last two are the tables of Bentur (2009) and Cavo (2012) in Fagerland, Lydersen and Laake,
# Statistics in Medicine 33 (2014).
PUBLISHED = {
    (36, 12, 2, 0): (0.0569, 0.3404),
    (20, 12, 2, 16): (0.0562, 0.3292),
    (18, 12, 2, 18): (0.0562, 0.3290),
    (36, 14, 0, 0): (0.1528, 0.4167),
    (35, 14, 0, 1): (0.1461, 0.4175),
    (18, 14, 0, 18): (0.1441, 0.3963),
    (2, 97, 1, 0): (0.8721, 0.9854),
    (1, 97, 1, 1): (0.8736, 0.9850),
    (0, 29, 1, 0): (0.6666, 0.9882),
    (2, 98, 0, 0): (0.9178, 0.9945),
    (1, 98, 0, 1): (0.9171, 0.9916),
    (0, 30, 0, 0): (0.8395, 1.0000),
    (54, 0, 0, 0): (-0.0664, 0.0664),
    (53, 0, 0, 1): (-0.0729, 0.0729),
    (30, 0, 0, 24): (-0.0358, 0.0358),
    (27, 0, 0, 27): (-0.0351, 0.0351),
    (59, 6, 16, 80): (-0.1186, -0.0046),
    (1, 1, 7, 12): (-0.5069, -0.0256),
}


@pytest.mark.parametrize(("table", "published"), PUBLISHED.items())
def test_newcombe_gives_the_published_limits(table, published):
    assert newcombe(*table) == pytest.approx(published, abs=1e-4)


def test_newcombe_agrees_with_another_derivation_on_every_table_of_up_to_nine_pairs():
    for n in range(1, 10):
        for both in range(n + 1):
            for only_first in range(n + 1 - both):
                for only_second in range(n + 1 - both - only_first):
                    table = (both, only_first, only_second, n - both - only_first - only_second)
                    low, high = newcombe(*table)
                    assert (low, high) == pytest.approx(newcombe_by_other_means(*table), abs=1e-7), table
                    assert -1 <= low <= (only_first - only_second) / n <= high <= 1, table


# Tables with no, some and full correction for continuity; the last has a negative correlation.
@pytest.mark.parametrize("table", [(50, 30, 30, 20), (400, 90, 30, 347), (600, 0, 0, 400), (20, 300, 250, 30)])
def test_newcombe_agrees_with_another_derivation_on_tables_of_usual_size(table):
    assert newcombe(*table) == pytest.approx(newcombe_by_other_means(*table), abs=1e-9)


@pytest.mark.parametrize("table", [*PUBLISHED, (8, 0, 0, 0), (0, 0, 0, 8), (0, 0, 5, 0), (3, 4, 0, 0)])
def test_swapping_the_two_sides_negates_and_mirrors_the_interval(table):
    both, only_first, only_second, neither = table
    low, high = newcombe(*table)
    assert newcombe(both, only_second, only_first, neither) == pytest.approx((-high, -low))


@pytest.mark.parametrize("all_or_none", [(40, 0, 0, 0), (0, 0, 0, 40)])
def test_no_difference_seen_in_few_images_is_still_uncertain(all_or_none):
    low, high = newcombe(*all_or_none)
    assert high == pytest.approx(-low)
    assert 0.05 < high < 0.13  # the Wilson limit of 0 in 40 is 0.088


def test_newcombe_nears_the_plain_normal_interval_when_images_are_many():
    both, only_first, only_second, neither = 300_000, 120_000, 80_000, 500_000
    n = 1_000_000
    difference = (only_first - only_second) / n
    half = 1.959964 * math.sqrt((only_first + only_second) / n - difference**2) / math.sqrt(n)
    assert newcombe(both, only_first, only_second, neither) == pytest.approx(
        (difference - half, difference + half), abs=0.005 * half
    )


def test_newcombe_covers_the_true_gain_about_95_times_in_100():
    # In practice most outcomes are the same for both surrogates. Unpaired limits would then cover more than 99 %.
    chances = [0.30, 0.09, 0.04, 0.57]
    tables = np.random.default_rng(0).multinomial(300, chances, size=4000)
    limits = np.array([newcombe(*table) for table in tables.tolist()])
    covered = np.mean((limits[:, 0] <= 0.05) & (limits[:, 1] >= 0.05))
    assert 0.935 < covered < 0.970


# McNemar


def test_mcnemar_agrees_with_the_exact_binomial_test_of_scipy_and_with_statsmodels():
    for only_first in (0, 1, 2, 3, 7, 20, 75, 333):
        for only_second in (0, 1, 5, 20, 60, 300):
            p = mcnemar(only_first, only_second)
            if only_first + only_second:
                expected = stats.binomtest(only_first, only_first + only_second, 0.5).pvalue
                assert p == pytest.approx(expected, rel=1e-9), (only_first, only_second)
            exact = mcnemar_of_statsmodels([[11, only_first], [only_second, 5]], exact=True)
            assert p == pytest.approx(exact.pvalue, rel=1e-9), (only_first, only_second)


def test_mcnemar_by_hand():
    assert mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 2**8)  # Bentur (2009): 0.0703
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 1), (6, 6), (20_000, 20_000)])
def test_mcnemar_is_1_where_neither_side_is_ahead(only_first, only_second):
    assert mcnemar(only_first, only_second) == 1.0


@pytest.mark.parametrize(("only_first", "only_second"), [(19_500, 20_500), (20_150, 19_850), (19_999, 20_001)])
def test_mcnemar_holds_for_a_whole_validation_set_of_discordant_images(only_first, only_second):
    assert mcnemar(only_first, only_second) == pytest.approx(stats.binomtest(only_first, 40_000).pvalue, rel=1e-6)


def test_mcnemar_of_an_overwhelming_difference_is_0_not_an_error():
    assert mcnemar(40_000, 0) == 0.0


# Paired gain


def test_paired_gain_by_hand():
    #       both  treated only  baseline only  neither
    treated = flags("11 1111 0 000")
    baseline = flags("11 0000 1 000")
    gain = paired_gain(treated, baseline)
    assert gain.value == pytest.approx(30)  # 60 % against 30 %
    assert (gain.low, gain.high) == pytest.approx(tuple(100 * np.array(newcombe_by_other_means(2, 4, 1, 3))))
    assert gain.p_value == pytest.approx(2 * (1 + 5) / 2**5)


def test_paired_gain_is_a_loss_when_the_baseline_does_better():
    treated, baseline = flags("1100000000"), flags("1011110000")
    gain, other_way = paired_gain(treated, baseline), paired_gain(baseline, treated)
    assert gain.value == pytest.approx(-30)
    assert (gain.low, gain.high) == pytest.approx((-other_way.high, -other_way.low))
    assert gain.p_value == other_way.p_value


def test_paired_gain_is_tighter_than_the_gap_between_two_separate_rates():
    rng = np.random.default_rng(1)
    baseline = rng.random(1000) < 0.4
    treated = baseline ^ (rng.random(1000) < 0.05)
    gain, rate = paired_gain(treated, baseline), wilson(int(baseline.sum()), 1000)
    assert gain.high - gain.low < 0.5 * (rate.high - rate.low)


def test_paired_gain_of_no_images_is_blank():
    assert paired_gain(flags(""), flags("")) == NO_GAIN


# Relation


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"architecture": "resnet50", "family": "resnet"}, "same_architecture"),
        ({"architecture": "resnet18", "family": "resnet"}, "same_family"),
        ({"architecture": "vit_b_16", "family": "vit"}, "cross_family"),
    ],
)
def test_relation_of_target_to_source(target, expected):
    assert relation(target, {"architecture": "resnet50", "family": "resnet"}) == expected


ONES, NONE = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
COUNTS = resampled_counts(3, seed=0, resamples=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(4, 3), "4 hits of 3 are no share"),
        (lambda: wilson(-1, 3), "-1 hits of 3 are no share"),
        (lambda: wilson(1, 0), "1 hits of 0 are no share"),
        (lambda: paired_gain(ONES, NONE[:2]), "must be of the same images, in the same order: treated 3, baseline 2"),
        (lambda: paired_gain(ONES.astype(int), NONE.astype(int)), r"treated must be a numpy array of bool \[n\]"),
        (lambda: paired_gain(ONES[None], NONE[None]), r"a value for each image, not bool \(1, 3\)"),
        (lambda: paired_gain([True], [False]), "must be a numpy array of bool .* not list"),
        (lambda: newcombe(0, 0, 0, 0), "are no numbers of at least one pair"),
        (lambda: newcombe(3, -1, 0, 0), "are no numbers of at least one pair"),
        (lambda: mcnemar(-1, 2), "-1 and 2 are no numbers of pairs"),
        (lambda: resampled_counts(0, seed=0), "n, resamples and block must be at least 1, not 0"),
        (lambda: mean_over_targets([MeanCell(ONES, NONE[:2], None)], COUNTS), "same images.*: eligible 3, wrong 2"),
        (lambda: mean_over_targets([MeanCell(ONES, NONE, NONE[:2])], COUNTS), "baseline_wrong 2"),
        (lambda: mean_over_targets([MeanCell(ONES[:2], NONE[:2], None)], COUNTS), "of 3 images, the outcomes of 2"),
    ],
)
def test_arguments_that_would_give_nonsense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_counts_of_numpy_do_not_overflow(kind):
    """100 times 100 in uint8, or the product of four margins in int64, would come out wrong without an error."""
    share, table = (100, 200), (60, 40, 40, 60) if kind is np.uint8 else (60_000, 40_000, 40_000, 60_000)
    assert wilson(*map(kind, share)) == wilson(*share)
    assert newcombe(*map(kind, table)) == newcombe(*table)
    assert mcnemar(kind(3), kind(200)) == mcnemar(3, 200)


@pytest.mark.parametrize("call", [lambda: wilson(2.5, 10), lambda: mcnemar(3.5, 10), lambda: newcombe(1.0, 2, 3, 4)])
def test_counts_are_whole_numbers(call):
    with pytest.raises(TypeError, match="integer"):
        call()
