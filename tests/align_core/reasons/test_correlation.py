"""Rank correlation across surrogates: against scipy, its p-value by all orders, and the coverage of its interval."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from align_core.errors import InputError
from align_core.reasons import RankCorrelation, rank_correlation


@pytest.mark.parametrize("n", [3, 5, 8, 12, 40])
@pytest.mark.parametrize("tied", [False, True])
def test_the_value_is_that_of_scipy(n: int, tied: bool) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        x, y = rng.normal(size=(2, n))
        if tied:
            x, y = x.round(), np.concatenate([[-9.0, 9.0], y[2:].round()])
            x[:2] = -5, 5
        found = rank_correlation(x.tolist(), y.tolist())
        assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert found.n == n and found.low is not None and found.high is not None
        assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_p_value_is_the_share_of_orders() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    value = stats.spearmanr(x, y).statistic
    orders = [abs(stats.spearmanr(x, order).statistic) >= value - 1e-9 for order in permutations(y)]
    assert rank_correlation(x, y).p_value == pytest.approx(np.mean(orders))
    assert rank_correlation(x, x).p_value == pytest.approx(2 / 120)
    long = np.random.default_rng(0).normal(size=(2, 30))
    drawn = rank_correlation(*long.tolist())
    assert drawn.p_value == pytest.approx(stats.spearmanr(*long).pvalue, abs=0.02)
    assert drawn == rank_correlation(*long.tolist())


def test_complete_agreement_of_few_is_no_certainty() -> None:
    widths = []
    for n in (4, 5, 6, 8, 12, 30):
        found = rank_correlation(list(range(n)), [x**3 for x in range(n)])
        assert found.value == pytest.approx(1) and found.high == 1 and found.low is not None
        widths.append(1 - found.low)
        opposite = rank_correlation(list(range(n)), [-x for x in range(n)])
        assert opposite.low == -1 and opposite.high == pytest.approx(-found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[1] == pytest.approx(1.71, abs=0.005) and widths[3] == pytest.approx(
        0.16, abs=0.005
    )  # as the README says
    assert widths[0] > 1.9 and widths[1] > 1.5 and widths[-1] < 0.05


@pytest.mark.parametrize("n", [5, 10, 25])
@pytest.mark.parametrize("rho", [0.0, 0.95])
@pytest.mark.parametrize("kind", ["normal", "heavy", "rounded"])
def test_the_interval_covers_the_true_correlation(kind: str, rho: float, n: int) -> None:
    rng = np.random.default_rng(7)

    def drawn(count: int) -> np.ndarray:
        both = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], count).T
        if kind == "heavy":
            both = both * np.sqrt(3 / rng.chisquare(3, count))
        return both.round() if kind == "rounded" else both

    true = stats.spearmanr(*drawn(400_000)).statistic
    found = [rank_correlation(*_kept(drawn(n))) for _ in range(200)]
    known = [own for own in found if own.low is not None and own.high is not None]
    covered = np.mean([own.low <= true <= own.high for own in known])
    assert covered >= 0.93


def _kept(both: np.ndarray) -> list[list[float | None]]:
    return both.tolist()  # type: ignore[no-any-return]


def test_surrogates_without_a_figure_do_not_count() -> None:
    found = rank_correlation([1.0, None, 2.0, 3.0, float("nan"), 9.0], [5.0, 1.0, 6.0, None, 2.0, 8.0])
    assert found == rank_correlation([1.0, 2.0, 9.0], [5.0, 6.0, 8.0])
    assert (found.n, found.low, found.high) == (3, -1.0, 1.0)
    assert found.p_value == pytest.approx(2 / 6)


def test_equal_surrogates_and_too_few_have_no_correlation() -> None:
    for reasons, gains in (([], []), ([1.0], [2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [4.0, 4.0])):
        assert rank_correlation(reasons, gains) == RankCorrelation(len(gains), None, None, None, None)


def test_two_values_alone_give_a_wide_interval() -> None:
    found = rank_correlation([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert found.low is not None and found.high is not None and found.low < 0.2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="give both for each"):
        rank_correlation([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="infinite"):
        rank_correlation([1.0, float("inf")], [1.0, 2.0])
