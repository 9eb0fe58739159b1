"""Figures over several seeds, by hand, and how often the intervals cover the truth."""

import numpy as np
import pytest

from align_core.seeds import over_seeds

ANY: list[tuple[float, float]] = []
"""Limits of single seeds, where images vary."""


def test_a_case_by_hand() -> None:
    # Mean 4, standard deviation 2; over images the mean varies with variance 1 (draws 3 and 5 are 1 away, and R - 1 = 1
    # makes it 2). The standard error is sqrt(4 / 3 + 2), and t with 2 degrees of freedom is 4.302653.
    found = over_seeds([2.0, 4.0, 6.0], np.array([[1.0, 3.0], [3.0, 5.0], [5.0, 7.0]]), ANY)
    half = 4.302653 * np.sqrt(4 / 3 + 2)
    assert (found.value, found.spread) == (4.0, 2.0)
    assert (found.low, found.high) == pytest.approx((3.05, 4.95))
    assert (found.both_low, found.both_high) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    # By the density of t with 2 degrees of freedom: 1 - x / sqrt(2 + x^2).
    x = 4 / np.sqrt(4 / 3 + 2)
    assert found.p_value == pytest.approx(1 - x / np.sqrt(2 + x * x), rel=1e-6)


@pytest.mark.parametrize("gain", [1.0, 100 / 3, -100.0])
def test_a_gain_that_never_varies_has_the_limits_of_its_seeds_and_no_test(gain: float) -> None:
    """As that of a single image: its resamples are all alike, which is no certainty."""
    found = over_seeds([gain, gain, gain], np.full((3, 7), gain), [(-30.0, 10.0), (-10.0, 20.0), (-20.0, 60.0)])
    assert found.value == pytest.approx(gain)
    assert (found.low, found.high, found.both_low, found.both_high) == (-20, 30, -20, 30)
    assert found.p_value is None


def test_no_gain_that_never_varies_is_no_difference() -> None:
    found = over_seeds([0.0, 0.0], np.zeros((2, 5)), [(-4.0, 2.0), (-2.0, 4.0)])
    assert (found.both_low, found.both_high, found.p_value) == (-3, 3, 1)


def test_seeds_that_vary_where_images_do_not_have_an_interval_over_both() -> None:
    found = over_seeds([0.0, 2.0], np.array([[0.0] * 5, [2.0] * 5]), [(-4.0, 2.0), (-2.0, 4.0)])
    assert (found.low, found.high) == (-3, 3)
    half = 12.7062 * np.sqrt(2 / 2)  # t with one degree of freedom, and the variance between the seeds
    assert (found.both_low, found.both_high) == pytest.approx((1 - half, 1 + half), rel=1e-5)


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        over_seeds([1.0], np.ones((1, 5)), ANY)
    with pytest.raises(ValueError, match="at least two seeds"):
        over_seeds([1.0, 2.0], np.ones((3, 5)), ANY)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("between", [0.0, 4.0])
def test_the_interval_over_both_covers_the_truth(seeds: int, between: float) -> None:
    """Gains of 100 images whose own effects vary, that of a seed too, and that of either beside the other."""
    rng, images, repeats, resamples = np.random.default_rng(seeds), 100, 400, 200
    truth, covered, over_images = 3.0, 0, 0
    for _ in range(repeats):
        of_image = rng.normal(0, 30, images)
        of_seed = rng.normal(0, between, (seeds, 1))
        gains = truth + of_image + of_seed + rng.normal(0, 20, (seeds, images))
        chosen = rng.integers(images, size=(resamples, images))
        found = over_seeds(gains.mean(axis=1).tolist(), gains[:, chosen].mean(axis=2), ANY)
        assert found.both_low is not None and found.both_high is not None
        covered += found.both_low <= truth <= found.both_high
        over_images += found.low <= truth <= found.high
    assert covered / repeats > 0.94
    if between and seeds == 2:
        assert over_images / repeats < 0.9  # an interval over images alone says too little
