"""Holm's correction, by hand and against the step-down procedure that defines it."""

import numpy as np
import pytest

from align_core.multiplicity import holm


def test_a_case_by_hand() -> None:
    # In order 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04, and the last may not fall below 0.06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_none_is_above_one_and_equal_ones_stay_equal() -> None:
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_rejections_are_those_of_the_step_down_procedure(seed: int) -> None:
    p_values = np.random.default_rng(seed).uniform(0, 0.1, 12).tolist()
    for level in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > level / (12 - rank):
                break
            rejected.add(int(index))
        assert {index for index, value in enumerate(holm(p_values)) if value <= level} == rejected


def test_what_is_no_p_value_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, float("nan")])
