"""Resamples, and rates and gains as means over targets, against plain loops and bootstraps of their own."""

import math

import numpy as np
import pytest
from limits_by_hand import limits_of_gain, limits_of_rate, newcombe

from align_core.transfer import (
    NO_GAIN,
    RESAMPLES,
    Gain,
    Interval,
    MeanCell,
    OnTargets,
    mean_gain,
    mean_interval,
    mean_over_targets,
    paired_gain,
    resampled_counts,
    resampled_means,
    wilson,
)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text.replace(" ", "")])


# Resampling


def test_every_resample_draws_as_many_images_as_there_are():
    drawn = np.concatenate(list(resampled_counts(37, seed=3)))
    assert drawn.shape == (RESAMPLES, 37)
    assert (drawn >= 0).all() and (drawn == drawn.round()).all()
    assert (drawn.sum(axis=1) == 37).all()


def test_resamples_that_do_not_fill_the_last_block_are_all_there():
    assert [block.shape for block in resampled_counts(5, seed=0, resamples=12, block=5)] == [(5, 5), (5, 5), (2, 5)]


def test_the_block_is_no_part_of_the_draws():
    one, other = (np.concatenate(list(resampled_counts(30, 4, resamples=50, block=block))) for block in (50, 7))
    assert (one == other).all()


def test_resamples_that_were_used_up_are_refused():
    counts, cells = resampled_counts(240, seed=0, resamples=10), cells_of_correlated_targets()
    mean_over_targets(cells, counts)
    with pytest.raises(ValueError, match="keep a list of them to use them twice"):
        mean_over_targets(cells, counts)


def test_an_image_is_drawn_like_a_fair_draw_with_replacement():
    n = 50
    drawn = np.concatenate(list(resampled_counts(n, seed=8)))
    share = (1 - 1 / n) / RESAMPLES  # counts are binomial(n, 1 / n), with mean 1 and variance 1 - 1 / n
    assert np.abs(drawn.mean(axis=0) - 1).max() < 5 * math.sqrt(share)
    assert drawn.var(axis=0).mean() == pytest.approx(1 - 1 / n, rel=0.02)
    assert np.mean(drawn == 0) == pytest.approx((1 - 1 / n) ** n, rel=0.02)


def test_the_seed_alone_decides_the_resamples():
    first, again, other = (np.concatenate(list(resampled_counts(20, seed, resamples=50))) for seed in (4, 4, 5))
    assert (first == again).all()
    assert (first != other).any()


# Means over targets


def cells_of_correlated_targets(n=240, seed=2):
    """Three targets that err on much the same images; the surrogate is slightly better than the baseline."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(size=n)
    cells = []
    for shift, eligible_share in ((-0.8, 0.9), (0.0, 0.6), (0.5, 0.3)):
        noise = rng.normal(scale=0.5, size=n)
        wrong, baseline = hardness + noise + shift > 0.2, hardness + noise + shift > 0.5
        cells.append(MeanCell(rng.random(n) < eligible_share, wrong, baseline))
    return cells


def bootstrap_by_index(cells, rows):
    """Mean rates and gains of each resample, computed plainly, one resample and one target at a time."""
    rates, gains = [], []
    for drawn in rows:
        of_rate, of_gain = [], []
        for cell in cells:
            chosen = drawn[cell.eligible[drawn]]
            of_rate.append(100 * cell.wrong[chosen].mean())
            of_gain.append(of_rate[-1] - 100 * cell.baseline_wrong[chosen].mean())
        rates.append(np.mean(of_rate))
        gains.append(np.mean(of_gain))
    return np.array(rates), np.array(gains)


def test_the_mean_weights_targets_not_images():
    first = MeanCell(flags("1111 0000"), flags("1000 1111"), flags("0000 1111"))  # 25 %, baseline 0 %
    second = MeanCell(flags("0000 0011"), flags("1111 1111"), flags("1111 1101"))  # 100 %, baseline 50 %
    rate, gain = mean_over_targets([first, second], resampled_counts(8, seed=0))
    assert rate.value == pytest.approx(62.5)  # pooled: 3 of 6, 50 %
    assert gain.value == pytest.approx(37.5)  # pooled: 2 of 6, 33.3 points
    assert rate.low <= rate.value <= rate.high
    assert gain.p_value is None


def test_the_intervals_are_those_of_the_given_resamples():
    cells = cells_of_correlated_targets()
    counts = list(resampled_counts(240, seed=6, resamples=700, block=300))
    rows = [np.repeat(np.arange(240), row.astype(int)) for row in np.concatenate(counts)]
    rates, gains = bootstrap_by_index(cells, rows)
    rate, gain = mean_over_targets(cells, counts)
    assert (rate.low, rate.high) == pytest.approx(tuple(np.percentile(rates, [2.5, 97.5])), rel=1e-9)
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])), rel=1e-9)


def test_the_intervals_agree_with_a_bootstrap_of_its_own_draws():
    cells = cells_of_correlated_targets()
    rates, gains = bootstrap_by_index(cells, np.random.default_rng(99).integers(0, 240, size=(RESAMPLES, 240)))
    rate, gain = mean_over_targets(cells, resampled_counts(240, seed=0))
    # With 10,000 resamples on either side, the limits differ by about 0.04 standard deviations.
    assert (rate.low, rate.high) == pytest.approx(tuple(np.percentile(rates, [2.5, 97.5])), abs=0.2 * rates.std())
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])), abs=0.2 * gains.std())
    # On the same images, the difference between two surrogates is far better known than either rate.
    assert gain.high - gain.low < 0.8 * (rate.high - rate.low)


def test_the_interval_of_one_target_is_that_of_the_target():
    wrong, before = np.arange(500) < 200, np.arange(500) >= 320
    rate, gain = mean_over_targets([MeanCell(np.ones(500, bool), wrong, before)], resampled_counts(500, seed=1))
    assert rate == wilson(200, 500)
    assert (gain.low, gain.high) == pytest.approx(newcombe(wrong, before))


def test_more_targets_that_fail_on_the_same_images_do_not_narrow_the_interval():
    cell, counts = cells_of_correlated_targets()[0], list(resampled_counts(240, seed=0, resamples=500))
    twice, eight_times = mean_over_targets([cell] * 2, counts), mean_over_targets([cell] * 8, counts)
    for one, many in zip(twice, eight_times, strict=True):
        assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))


def test_what_never_varies_is_not_certain():
    """A percentile interval would have no width where surrogate and baseline do the same, or nothing is ever wrong."""
    cells = [MeanCell(cell.eligible, cell.wrong, cell.wrong) for cell in cells_of_correlated_targets()]
    _, gain = mean_over_targets(cells, resampled_counts(240, seed=0, resamples=500))
    alone = [newcombe(cell.wrong[cell.eligible], cell.wrong[cell.eligible]) for cell in cells]
    assert (gain.value, gain.low, gain.high) == pytest.approx((0, *np.mean(alone, axis=0)))
    never = np.zeros(240, bool)
    rate, _ = mean_over_targets([MeanCell(~never, never, None)] * 3, resampled_counts(240, seed=0, resamples=500))
    assert (rate.value, rate.low, rate.high) == pytest.approx((0, 0, wilson(0, 240).high))


@pytest.mark.parametrize(("images", "is_gain"), [(4, False), (5, False), (6, True)])
def test_a_gain_on_a_few_images_is_one_where_a_sign_test_rejects(images, is_gain):
    """Percentiles exclude 0 as soon as four images point one way; a sign test rejects at 2 / 2^6, from six on."""
    wrong = np.arange(60) < images
    cells = [MeanCell(np.ones(60, bool), wrong, np.zeros(60, bool)), MeanCell(np.ones(60, bool), wrong, wrong)]
    _, gain = mean_over_targets(cells, resampled_counts(60, seed=0))
    assert (gain.low > 0) == is_gain


def test_a_target_that_no_image_is_eligible_for_is_left_out():
    cells, counts = cells_of_correlated_targets(), list(resampled_counts(240, seed=0, resamples=500))
    nothing = MeanCell(np.zeros(240, bool), np.ones(240, bool), None)
    assert mean_over_targets([nothing, *cells], counts) == mean_over_targets(cells, counts)


def test_no_eligible_image_at_all_leaves_the_mean_blank():
    counts = list(resampled_counts(4, seed=0, resamples=10))
    blank = (Interval(None, None, None), NO_GAIN)
    assert mean_over_targets([], counts) == blank
    assert mean_over_targets([MeanCell(flags("0000"), flags("1111"), flags("1111"))], counts) == blank


def test_the_gain_is_blank_without_a_baseline_and_the_rate_is_not():
    rate, gain = mean_over_targets(
        [MeanCell(flags("1111"), flags("1100"), None)], resampled_counts(4, seed=0, resamples=200)
    )
    assert rate.value == pytest.approx(50)
    assert gain == NO_GAIN


def test_so_few_images_that_resamples_miss_them_all_still_give_an_interval():
    # One resample of 6 in eleven contains neither eligible image. It says nothing about the rate, and is not 0 %.
    one = MeanCell(flags("100000"), flags("111111"), flags("000000"))
    other = MeanCell(flags("010000"), flags("111111"), flags("111111"))
    rate, gain = mean_over_targets([one, other], resampled_counts(6, seed=0))
    assert (rate.value, rate.low, rate.high) == (100, wilson(1, 1).low, 100)
    alone = [newcombe(*(np.array([side]) for side in pair)) for pair in ((True, False), (True, True))]
    assert (gain.value, gain.low, gain.high) == pytest.approx((50, *np.mean(alone, axis=0)))


def test_images_that_were_wrong_before_the_attack_do_not_count_as_transferred():
    # The reference code tests the parity of its four conditions where it means their conjunction. It thereby also
    # counts images that both models always get wrong, and images that fool neither.
    source_right, target_right = flags("11111 000 1"), flags("11111 000 0")
    source_fooled, target_wrong = flags("11100 111 1"), flags("11000 111 1")
    parity = ((source_right == target_right) == source_fooled) == target_wrong
    assert parity.sum() == 7  # 2 transferred, 2 that fool neither, 3 that were wrong throughout

    eligible = source_right & target_right
    cell = MeanCell(eligible, target_wrong, flags("10000 111 1"))
    rate, gain = mean_over_targets([cell], resampled_counts(9, seed=0))
    assert rate.value == pytest.approx(40)  # 2 of 5
    assert gain.value == pytest.approx(20)
    assert paired_gain(target_wrong[eligible], cell.baseline_wrong[eligible]).value == pytest.approx(20)


# Many surrogates in one pass


def means_one_by_one(cells, counts):
    """The means as they were computed before: anew for every surrogate, baseline and group of targets."""

    def means(hits_NT, eligible_NT):
        rates = []
        for block in counts:
            drawn = block.astype(np.float32)
            size = drawn @ eligible_NT.astype(np.float32)
            share = (drawn @ hits_NT.astype(np.float32)).astype(np.float64) / np.maximum(size, 1)
            targets, some = np.count_nonzero(size, axis=1), np.count_nonzero(size, axis=1) > 0
            rates.append(100 * share[some].sum(axis=1) / targets[some])
        return np.concatenate(rates)

    cells = [cell for cell in cells if cell.eligible.any()]
    if not cells:
        return Interval(None, None, None), NO_GAIN
    eligible, wrong, baseline = (
        np.stack([flags_of(cell) for cell in cells], axis=1)
        for flags_of in (lambda c: c.eligible, lambda c: c.eligible & c.wrong, lambda c: c.eligible & c.baseline_wrong)
    )
    rates = means(wrong, eligible)
    limits = limits_of_rate([(cell.eligible, cell.wrong) for cell in cells], rates)
    interval = Interval(100 * float(np.mean(wrong.sum(0) / eligible.sum(0))), *map(float, limits))
    gain = 100 * float(np.mean((wrong.sum(0) - baseline.sum(0).astype(int)) / eligible.sum(0)))
    own = [(cell.eligible, cell.wrong, cell.baseline_wrong) for cell in cells]
    limits = limits_of_gain(own, rates - means(baseline, eligible))
    return interval, Gain(gain, *map(float, limits), None)


@pytest.mark.parametrize("images", [6, 240])
def test_one_pass_gives_the_same_bits_as_every_mean_by_itself(images):
    """Two sources, with surrogates of each, on 19 targets: more than numpy adds in a row. Some targets do not count."""
    rng, targets = np.random.default_rng(images), 19
    groups = [range(targets), [4], [0, 5, 6, 18], [7], [2, 7]]
    sources = [[rng.random(images) < share for share in rng.random(targets)] for _ in range(2)]
    for eligible in sources:
        eligible[7] = np.zeros(images, bool)
    shown = [
        OnTargets(sources[number % 2], [rng.random(images) < 0.4 for _ in range(targets)], groups)
        for number in range(6)
    ]
    counts = list(resampled_counts(images, seed=2, resamples=1200))
    found = list(resampled_means(shown, iter(counts)))
    for number, own in enumerate(shown):
        base = shown[number % 2]
        for group, rates, baseline_rates in zip(groups, found[number], found[number % 2], strict=True):
            eligible, wrong, baseline = (
                [side[target] for target in group] for side in (own.eligible, own.wrong, base.wrong)
            )
            cells = [MeanCell(*flags) for flags in zip(eligible, wrong, baseline, strict=True)]
            gain = mean_gain(eligible, wrong, baseline, rates - baseline_rates)
            expected = means_one_by_one(cells, counts)
            found_now = mean_interval(eligible, wrong, rates), gain
            assert mean_over_targets(cells, counts) == found_now
            for one, other in zip(found_now, expected, strict=True):
                same = [math.nan if value is None else value for value in vars(one).values()]
                known = [math.nan if value is None else value for value in vars(other).values()]
                assert same == pytest.approx(known, rel=1e-9, abs=1e-9, nan_ok=True)
