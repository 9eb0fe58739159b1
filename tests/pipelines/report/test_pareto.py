"""Rates against their cost: the gradients per image, and which attacks no cheaper one beats."""

from typing import Any

from align_core.attacks import AttackConfig
from pipelines.report.drawing import as_png, as_svg
from pipelines.report.pareto import Point, named_points, pareto_figure, pareto_front, points_of


def point(attack: str, gradients: int, rate: float) -> Point:
    return Point("source", attack, gradients, rate, rate - 2, rate + 2)


def row(attack: str, gradients: int, rate: float | None, surrogate: str = "source", target: str = "(mean)") -> Any:
    low, high = (None, None) if rate is None else (rate - 2, rate + 2)
    return {
        "surrogate": surrogate, "attack": attack, "target": target, "gradients": gradients, "rate": rate,
        "rate_low": low, "rate_high": high, "targeted_rate": 9, "targeted_low": 7, "targeted_high": 11,
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


ATTACKS = {name: AttackConfig(method=name, eps=8 / 255) for name in ("mi", "bsr", "di", "sia", "logit")} | {
    "pgd_l2": AttackConfig(method="pgd_l2", eps=0.5)
}
LINF = "l-infinity, eps 8/255"


def drawn(*rows: Any, groups: tuple[str, ...] = ()) -> bytes:
    return as_png(pareto_figure(rows, {row["attack"]: ATTACKS[row["attack"]] for row in rows}, groups, "title"))


def test_a_figure_is_drawn_whatever_there_is() -> None:
    nothing = as_png(pareto_figure([], ATTACKS, [], "title"))
    some = drawn(row("mi", 10, 34), row("bsr", 200, 85, "aligned"), row("di", 10, None), row("mi", 10, 30, target="t"))
    assert all(content.startswith(b"\x89PNG") for content in (nothing, some)) and nothing != some


def test_it_shows_the_mean_over_the_targets_with_its_interval_its_cost_and_the_front() -> None:
    one, two = row("mi", 10, 34), row("bsr", 200, 85)
    figure = drawn(one, two)
    assert figure == drawn(one, two, row("bsr", 10, 30, target="t"), row("di", 10, None))  # which are not drawn
    for change in ({"rate_low": 20.0}, {"rate_high": 90.0}, {"gradients": 100}, {"attack": "sia"}):
        assert drawn(one, two | change) != figure
    assert drawn(one, two | {"surrogate": "aligned"}) != figure
    assert drawn(one, two, row("mi", 10, 30, target="(mean far)"), groups=("far",)) != figure


def test_of_many_attacks_those_on_the_front_are_named() -> None:
    many = [Point("source", f"a{number}", number, 50 - abs(number - 8), 0, 100) for number in range(1, 14)]
    assert named_points(many[:12]) == many[:12]
    assert [point.attack for point in named_points(many)] == [f"a{number}" for number in range(1, 9)]


def test_attacks_in_other_balls_and_targeted_ones_are_not_compared() -> None:
    rows = [row("mi", 10, 34), row("pgd_l2", 10, 50), row("logit", 300, 90), row("bsr", 200, 85, target="(mean far)")]
    found = {
        (ball, mean): [(own.attack, own.rate, own.low, own.high) for own in points_of(rows, ATTACKS, ball, mean)]
        for ball in (LINF, "l2, eps 0.5", f"{LINF}, targeted rate")
        for mean in ("(mean)", "(mean far)")
    }
    assert found == {
        (LINF, "(mean)"): [("mi", 34, 32, 36)],
        (LINF, "(mean far)"): [("bsr", 85, 83, 87)],
        ("l2, eps 0.5", "(mean)"): [("pgd_l2", 50, 48, 52)],
        ("l2, eps 0.5", "(mean far)"): [],
        (f"{LINF}, targeted rate", "(mean)"): [("logit", 9, 7, 11)],
        (f"{LINF}, targeted rate", "(mean far)"): [],
    }


def test_an_attack_without_gradients_has_no_place_and_the_others_keep_their_texts() -> None:
    """As AutoAttack's Square: an axis in powers of ten has no 0, and dots and texts have to stay together."""
    rows = [row("di", 0, 50), row("mi", 10, 34), row("bsr", 200, 85)]
    svg = as_svg(pareto_figure(rows, {own["attack"]: ATTACKS[own["attack"]] for own in rows}, [], "title")).decode()
    assert "mi on source: 34.0 % (32.0 to 36.0), 10 gradients" in svg and "bsr on source" in svg
    assert "di on source" not in svg
