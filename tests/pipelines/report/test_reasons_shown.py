"""The section of the page about reasons: a row of measures for each surrogate, and what goes with the gain."""

import dataclasses
from typing import Any

import pytest
from hand_made import HandMade
from read_page import ReadPage

from pipelines.report.html_page import Page, html_page
from pipelines.report.page import read_report
from pipelines.report.reasons_shown import reasons_summary, telling_correlations
from pipelines.report.shown import shown
from pipelines.report.tabled import Report


@pytest.fixture
def report(with_reasons: HandMade) -> Report:
    return read_report(with_reasons.blueprint().store)


def test_every_surrogate_has_its_measures_in_one_row(report: Report) -> None:
    table = reasons_summary(report)
    names = list(dict.fromkeys(row["surrogate"] for row in report.reasons))
    assert [row[0].text for row in table.rows] == names and len(names) > 2
    assert table.columns[:4] == ["surrogate", "input gradient", "curvature", "linearity error"]
    (own,) = [
        row for row in report.reasons
        if (row["surrogate"], row["measure"], row["point"]) == ("aligned", "gradient_l2", "clean")
    ]  # fmt: skip
    cell = table.rows[names.index("aligned")][1]
    assert cell.order == own["value"] and f"{own['value_low']:.3g} to {own['value_high']:.3g}" in cell.text


def test_changes_are_written_in_the_units_of_their_measure_and_those_of_other_tables_in_points() -> None:
    row = {"surrogate": "a", "value": 12345.6, "value_low": 999.4, "value_high": 2e9,
           "change": 1.2345e-6, "change_low": -1234.5, "change_high": 0.5}  # fmt: skip
    assert [cell.text for cell in shown("reasons", [row]).rows[0]] == [
        "a", "12,346 (999 to 2e+09)", "+1.23e-06 (-1,234 to +0.5)",
    ]  # fmt: skip
    assert shown("robustness", [row]).rows[0][2].text == "+0.0 (-1234.5 to +0.5)"


def correlation(
    measure: str, value: float | None, low: float | None, high: float | None, attack: str = "(mean)"
) -> Any:
    return {
        "measure": measure, "point": "clean", "counterpart": "", "role": "", "before_crafting": "yes",
        "attack": attack, "target": "(mean)", "n": 9, "correlation": value, "correlation_low": low,
        "correlation_high": high, "p_value": 0.01, "p_holm": 0.1,
    }  # fmt: skip


def test_what_goes_with_the_gain_is_what_an_interval_without_zero_says(report: Report) -> None:
    rows = [
        correlation("loss", 0.5, 0.1, 0.8), correlation("curvature", -0.9, -0.95, -0.6),
        correlation("linearity", 0.6, -0.1, 0.9), correlation("gradient_l1", None, None, None),
        correlation("gradient_l2", 0.99, 0.9, 1.0, attack="pgd"),
    ]  # fmt: skip
    own = dataclasses.replace(report, correlations=rows)
    assert [row[0].text for row in telling_correlations(own).rows] == ["curvature", "loss"]
    page = ReadPage(html_page(Page("a", own)))
    assert "reasons" in page.ids and "Which of them go with the gain" in page.source
    nothing = ReadPage(html_page(Page("a", dataclasses.replace(report, correlations=rows[2:4]))))
    assert "No measure goes with the gain beyond doubt" in nothing.source
    without = ReadPage(html_page(Page("a", dataclasses.replace(report, reasons=[], correlations=[]))))
    assert "reasons" not in without.ids
