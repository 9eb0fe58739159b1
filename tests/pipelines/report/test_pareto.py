"""Rates against their cost: the gradients per image, and which attacks no cheaper one beats."""

from typing import Any

from pipelines.report.pareto import Point, pareto_figure, pareto_front


def point(attack: str, gradients: int, rate: float) -> Point:
    return Point("source", attack, gradients, rate, rate - 2, rate + 2)


def row(attack: str, gradients: int, rate: float | None, surrogate: str = "source", target: str = "(mean)") -> Any:
    low, high = (None, None) if rate is None else (rate - 2, rate + 2)
    return {
        "surrogate": surrogate, "attack": attack, "target": target, "gradients": gradients, "rate": rate,
        "rate_low": low, "rate_high": high,
    }  # fmt: skip


def test_the_front_has_what_no_cheaper_attack_beats() -> None:
    points = [
        point("bsr", 200, 85),
        point("mi", 10, 34),
        point("vmi", 190, 55),
        point("di", 10, 51),
        point("dem", 50, 76),
    ]
    assert [own.attack for own in pareto_front(points)] == ["di", "dem", "bsr"]


def test_of_two_with_the_same_rate_the_cheaper_one_is_on_it() -> None:
    assert [own.attack for own in pareto_front([point("b", 20, 50), point("a", 10, 50)])] == ["a"]


def test_a_figure_is_drawn_whatever_there_is() -> None:
    some = [row("mi", 10, 34), row("bsr", 200, 85, "aligned"), row("di", 10, None), row("mi", 10, 30, target="t")]
    drawn = [pareto_figure(rows, "title") for rows in ([], some)]
    assert all(content.startswith(b"\x89PNG") for content in drawn) and drawn[0] != drawn[1]


def test_it_shows_the_mean_over_the_targets_with_its_interval_its_cost_and_the_front() -> None:
    def drawn(*rows: Any) -> bytes:
        return pareto_figure(rows, "title")

    one, two = row("mi", 10, 34), row("bsr", 200, 85)
    figure = drawn(one, two)
    assert figure == drawn(one, two, row("di", 10, 30, target="t"), row("di", 10, None))  # which are not drawn
    for change in ({"rate_low": 20.0}, {"rate_high": 90.0}, {"gradients": 100}, {"attack": "sia"}):
        assert drawn(one, two | change) != figure
    assert drawn(one, two | {"surrogate": "aligned"}) != figure
