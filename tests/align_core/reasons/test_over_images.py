"""Means of figures over images, with blanks, against loops of a few lines."""

import numpy as np
import pytest

from align_core.errors import InputError
from align_core.reasons.over_images import limits, means_over_images
from align_core.transfer import resampled_counts

VALUES = np.array([[1.0, np.nan, 5.0], [2.0, np.nan, np.nan], [6.0, np.nan, 1.0], [7.0, np.nan, 3.0]])


def test_means_and_draws_are_over_the_images_that_have_a_figure() -> None:
    counts = list(resampled_counts(4, seed=3, resamples=40, block=15))
    found = means_over_images(VALUES, counts)
    assert found.n_M.tolist() == [4, 0, 3]
    assert found.value_M[[0, 2]].tolist() == [4.0, 3.0] and np.isnan(found.value_M[1])
    for drawn_N, (one, blank, other) in zip(np.concatenate(counts), found.draws_RM, strict=True):
        images = np.repeat(np.arange(4), drawn_N)
        assert one == pytest.approx(VALUES[images, 0].mean()) and np.isnan(blank)
        kept = VALUES[images, 2][~np.isnan(VALUES[images, 2])]
        assert np.isnan(other) if not len(kept) else other == pytest.approx(kept.mean())


def test_limits_are_percentiles_of_the_draws_that_there_are() -> None:
    draws = np.stack([np.arange(101.0), np.full(101, np.nan), np.where(np.arange(101) == 7, np.nan, 2.0)], axis=1)
    low, high = limits(draws)
    assert low[[0, 2]].tolist() == [2.5, 2.0] and high[[0, 2]].tolist() == [97.5, 2.0]
    assert np.isnan([low[1], high[1]]).all()


def test_resamples_of_other_images_or_none_are_refused() -> None:
    with pytest.raises(InputError, match="of 5 images, and there are 4"):
        means_over_images(VALUES, resampled_counts(5, seed=0, resamples=1))
    with pytest.raises(InputError, match="there are no resamples"):
        means_over_images(VALUES, [])
