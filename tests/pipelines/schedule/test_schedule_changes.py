"""What counts as a change between two runs: new cells, rates whose intervals do not overlap, and nothing else."""

from typing import Any, Literal, cast

import pytest

from pipelines.schedule.changes import RateRow, compare, rate_rows

NO_CHANGE = "no detectable change: no new cell, and every interval overlaps the one before"


def row(target: str = "vgg", low: float | None = 20.0, high: float | None = 40.0, **more: Any) -> RateRow:
    rate = None if low is None or high is None else (low + high) / 2
    figures = {"n": 100, "rate": rate, "rate_low": low, "rate_high": high}
    return cast(RateRow, {"surrogate": "aligned", "attack": "pgd", "target": target, **figures, **more})


def test_only_the_compared_columns_are_kept() -> None:
    assert rate_rows([row(relation="same_family", gain=1.0, p_value=None)]) == [row()]
    assert rate_rows([row(targeted_rate=None, targeted_low=None, targeted_high=None)]) == [row()]
    targeted = rate_rows([row(targeted_rate=7.0, targeted_low=5.0, targeted_high=9.0)])
    assert targeted == [row(rate=7.0, rate_low=5.0, rate_high=9.0)], "the targeted rate is watched"


@pytest.mark.parametrize(
    ("low", "high", "moved"),
    [(20, 40, False), (40, 60, False), (40.1, 60, True), (0, 20, False), (0, 19.9, True), (25, 30, False)],
)
def test_a_rate_has_moved_where_the_intervals_are_disjoint(low: float, high: float, moved: bool) -> None:
    found = compare([row()], [row(low=low, high=high)])
    assert found.new == []
    assert bool(found.moved) == moved
    if moved:
        assert found.moved[0]["before"] == {"n": 100, "rate": 30.0, "rate_low": 20.0, "rate_high": 40.0}
        assert found.lines() == [
            f"moved: aligned, pgd, vgg: 30.0 (20.0 to 40.0) -> {(low + high) / 2:.1f} ({low:.1f} to {high:.1f})"
        ]
    else:
        assert found.lines() == [NO_CHANGE]


@pytest.mark.parametrize("key", ["surrogate", "attack", "target"])
def test_a_cell_is_new_where_any_part_of_it_is(key: Literal["surrogate", "attack", "target"]) -> None:
    found = compare([row()], [row(), cast(RateRow, row(low=50, high=60) | {key: "other"})])
    assert [entry[key] for entry in found.new] == ["other"]
    assert found.moved == []
    assert found.lines()[0].startswith("new: ")


def test_means_are_never_new_but_can_move() -> None:
    found = compare([row(), row("(mean)")], [row(), row("(mean)", 50, 60), row("(mean same_family)")])
    assert found.new == []
    assert [entry["target"] for entry in found.moved] == ["(mean)"]


def test_a_rate_over_no_images_has_not_moved() -> None:
    assert compare([row(low=None, high=None)], [row()]).moved == []
    assert compare([row()], [row(low=None, high=None)]).moved == []
    assert compare([], [row(low=None, high=None)]).lines() == ["new: aligned, pgd, vgg: no image counts"]
