"""The data of the figures about reasons and soft labels, and the texts that figures show on hovering."""

from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

import pytest
from hand_made import HandMade
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reasons_by_hand import reasoned

from pipelines.report.drawing import as_svg
from pipelines.report.drawn import draw_figures
from pipelines.report.geometry import geometry_figures, slice_figures
from pipelines.report.html_page import Page, html_page
from pipelines.report.page import read_report
from pipelines.report.reason_gains import changes_and_gains, reason_gain_figures
from pipelines.report.reasons_shown import telling_correlations
from pipelines.report.softness import softness_figures, softness_of
from pipelines.report.tabled import Report


@pytest.fixture
def report(with_reasons: HandMade) -> Report:
    return read_report(with_reasons.blueprint().store)


def panels_of(figures: Iterable[Figure]) -> dict[str, Axes]:
    return {panel.get_title().partition("\n")[0]: panel for figure in figures for panel in figure.axes}


def dots(panel: Axes) -> dict[str, list[tuple[float, float]]]:
    """What is drawn in a panel with intervals: label -> its points."""
    return {
        str(own.get_label()): list(
            zip(map(float, own.lines[0].get_xdata()), map(float, own.lines[0].get_ydata()), strict=True)
        )
        for own in panel.containers
    }


def value(report: Report, surrogate: str, measure: str, point: str, counterpart: str = "") -> Any:
    (row,) = [
        row for row in report.reasons
        if (row["surrogate"], row["measure"], row["point"], row["counterpart"])
        == (surrogate, measure, point, counterpart)
    ]  # fmt: skip
    return row["value"]


def test_every_measure_is_drawn_where_it_was_taken(report: Report) -> None:
    panels = panels_of(geometry_figures(report.reasons, "title"))
    assert list(panels) == [
        "input gradient", "curvature", "linearity error", "gradient cosine with targets", "agreement with targets",
        "perturbation across their gradients",
    ]  # fmt: skip
    names = [tick.get_text() for tick in panels["input gradient"].get_yticklabels()]
    drawn = dots(panels["input gradient"])
    assert names == list(dict.fromkeys(row["surrogate"] for row in report.reasons))
    assert {point: [x for x, _ in own] for point, own in drawn.items()} == {
        point: [value(report, name, "gradient_l2", point) for name in names]
        for point in ("clean", "random", "attacked")
    }
    assert [round(y) for _, y in drawn["random"]] == list(range(len(names)))
    cosines = dots(panels["gradient cosine with targets"])["clean"]
    assert (value(report, "warm", "cosine", "clean", "(mean)"), names.index("warm")) in [
        (x, round(y)) for x, y in cosines
    ]


def test_slices_are_drawn_in_the_order_of_their_factors(report: Report) -> None:
    panels = panels_of(slice_figures(report.reasons, "title"))
    along = dots(panels["along the perturbation"])["aligned"]
    assert along == sorted(along) and len(along) > 4
    for place, loss in along:
        factor = round(2 * place) / 2  # beside which the surrogates stand
        assert loss == value(report, "aligned", "loss_along", f"{factor:g}") and abs(place - factor) < 0.2
    places = {own[0][0] for own in dots(panels["along the perturbation"]).values()}
    assert len(places) == len(dots(panels["along the perturbation"])) > 3
    assert dots(panels["in a random direction across it"])["aligned"] != along


def test_changes_stand_beside_the_mean_gain_of_their_surrogate(report: Report) -> None:
    points = changes_and_gains(report.reasons, report.transfer, ["source"], ["pgd", "mi"])
    by_name = {(own.measure, own.surrogate): own for own in points}
    gains = [row["gain"] for row in report.transfer if (row["surrogate"], row["target"]) == ("warm", "(mean)")]
    assert len(gains) == 2
    own = by_name["cosine", "warm"]
    assert own.gain == pytest.approx(sum(gain or 0 for gain in gains) / 2)
    before = value(report, "source", "cosine", "clean", "(mean)")
    assert own.change == pytest.approx(value(report, "warm", "cosine", "clean", "(mean)") - before, abs=1e-5)
    assert by_name["cosine", "source"][2:] == (0, 0, 0, 0)
    panels = panels_of(reason_gain_figures(points, report.correlations, "title"))
    assert dots(panels["gradient cosine with targets"])["warm"] == [(own.change, own.gain)]
    (row,) = [
        row for row in report.correlations
        if (row["measure"], row["point"], row["counterpart"], row["attack"]) == ("cosine", "clean", "(mean)", "(mean)")
    ]  # fmt: skip
    wanted = "no correlation can be told" if row["correlation"] is None else f"correlation {row['correlation']:+.2f}"
    assert wanted in panels["gradient cosine with targets"].get_title()


def soft(surrogate: str, temperature: float, attack: str, gain: float, witness: str = "w") -> Any:
    """A row of soft_labels.csv; the witness's figures go by the temperature alone."""
    return {
        "surrogate": surrogate, "witness": witness, "temperature": temperature, "n": 9, "seeds": 1,
        "entropy": temperature / 10, "entropy_low": 0.0, "entropy_high": 9.0,
        "ece": temperature, "ece_low": 0.0, "ece_high": 50.0,
        "agreement": 90.0, "agreement_low": 80.0, "agreement_high": 95.0,
        "attack": attack, "gain": gain, "gain_low": gain - 1, "gain_high": gain + 1,
    }  # fmt: skip


def test_soft_labels_and_gains_are_lines_over_the_temperature() -> None:
    rows = [soft(f"t{t}", t, attack, t + len(attack)) for t in (16, 1, 4) for attack in ("pgd", "mi")]
    rows.append(soft("other", 2, "pgd", -3))
    panels = panels_of(softness_figures(softness_of(rows, {"t16": "t16", "t1": "t16", "t4": "t16"}), "title"))
    assert list(panels) == [
        "entropy of the witness", "calibration error of the witness", "agreement with the witness",
        "mean gain, pgd", "mean gain, mi",
    ]  # fmt: skip
    assert dots(panels["entropy of the witness"]) == {"t16": [(1, 0.1), (4, 0.4), (16, 1.6)], "other": [(2, 0.2)]}
    assert dots(panels["mean gain, pgd"]) == {"t16": [(1, 4), (4, 7), (16, 19)], "other": [(2, -3)]}
    assert dots(panels["mean gain, mi"])["t16"] == [(1, 3), (4, 6), (16, 18)]


def test_of_several_witnesses_each_has_its_own_line_and_a_gain_is_drawn_once() -> None:
    rows = [soft(f"t{t}", t, "pgd", 1, witness) for t in (1, 4) for witness in ("a", "b")]
    panels = panels_of(softness_figures(softness_of(rows, {"t1": "t1", "t4": "t1"}), "title"))
    assert {name: len(own) for name, own in dots(panels["agreement with the witness"]).items() if own} == {
        "t1 and a": 2, "t1 and b": 2,
    }  # fmt: skip
    assert {name: len(own) for name, own in dots(panels["mean gain, pgd"]).items() if own} == {"t1": 2}


def test_one_temperature_is_no_figure() -> None:
    assert softness_of([soft("a", 4, "pgd", 1), soft("b", 4, "pgd", 2)], {}) == []


def test_the_page_has_these_figures_where_there_are_reasons(with_reasons: HandMade, report: Report) -> None:
    drawn = draw_figures(with_reasons.blueprint(), report)
    assert {"geometry", "slices", "changes", "softness"} <= drawn.keys()
    page = (with_reasons.report / "report.html").read_text()
    assert all(f'aria-label="{name}"' in page for name in ("geometry", "slices", "changes", "softness"))


def test_with_one_attack_its_correlations_are_shown(tmp_path: Any) -> None:
    attacks = {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}
    report = read_report(reasoned(tmp_path, attacks=attacks).blueprint().store)
    rows = [row | {"correlation": 0.9, "correlation_low": 0.5, "correlation_high": 1.0} for row in report.correlations]
    assert {row["attack"] for row in rows} == {"pgd"}
    own = Report(**{**vars(report), "correlations": rows})
    assert telling_correlations(own).rows
    assert "No measure goes with the gain" not in html_page(Page("a", own))


def test_every_dot_says_what_it_is_on_hovering(with_reasons: HandMade, report: Report) -> None:
    for figure in draw_figures(with_reasons.blueprint(), report).values():
        root = ElementTree.fromstring(as_svg(figure))
        assert not [own for own in root.iter() if own.get("id", "").startswith("hover")]
    (figure,) = slice_figures(report.reasons, "title")
    root = ElementTree.fromstring(as_svg(figure))
    texts = [own.text for own in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(texts) == len([row for row in report.reasons if row["measure"].startswith("loss_")])
    (row,) = [
        row for row in report.reasons
        if (row["surrogate"], row["measure"], row["point"]) == ("aligned", "loss_along", "1")
    ]  # fmt: skip
    assert f"aligned, at 1: {row['value']:.4g} ({row['value_low']:.4g} to {row['value_high']:.4g})" in texts
