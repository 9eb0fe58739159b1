"""Means of reasons over images, with intervals: percentiles of resampled images, as for all means of the tables."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError
from align_core.transfer import Counts

Floats = npt.NDArray[np.float64]


class Means(NamedTuple):
    """Means of M figures over those images that have them.

    Args:
        n_M: number of images that have the figure, int64.
        value_M: their mean; NaN where there are none.
        draws_RM: the same in each resample; NaN where it holds no such image.
    """

    n_M: npt.NDArray[np.int64]
    value_M: Floats
    draws_RM: Floats


def means_over_images(values_NM: Floats, counts: Iterable[Counts]) -> Means:
    """Means of several figures of the same images, and in each resample of the images.

    Args:
        values_NM: float64, NaN for a blank. Each figure's mean is over the images that have it.
        counts: resamples of the N images from `transfer.resampled_counts`; to use them twice, keep a list.

    Raises InputError for another number of images, or where there are no resamples.
    """
    has_NM = ~np.isnan(values_NM)
    filled_NM, has_NM = np.where(has_NM, values_NM, 0.0), has_NM.astype(np.float64)
    blocks = []
    for block_RN in counts:
        if block_RN.shape[1] != len(values_NM):
            raise InputError(f"the resamples are of {block_RN.shape[1]} images, and there are {len(values_NM)}")
        drawn_RN = block_RN.astype(np.float64)
        blocks.append(_ratio(drawn_RN @ filled_NM, drawn_RN @ has_NM))
    if not blocks:
        raise InputError("there are no resamples, or they were used before: keep a list of them to use them twice")
    n_M = has_NM.sum(axis=0)
    return Means(n_M.astype(np.int64), _ratio(filled_NM.sum(axis=0), n_M), np.concatenate(blocks))


def limits(draws_RM: Floats) -> tuple[Floats, Floats]:
    """The 2.5th and 97.5th percentile of each figure's draws [M]; NaN where all are."""
    limits_2M = np.full((2, draws_RM.shape[1]), np.nan)
    has_M = ~np.isnan(draws_RM).all(axis=0)
    if has_M.any():
        limits_2M[:, has_M] = np.nanquantile(draws_RM[:, has_M], [0.025, 0.975], axis=0)
    return limits_2M[0], limits_2M[1]


def _ratio(sums: Floats, counts: Floats) -> Floats:
    found: Floats = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return found
