"""Which surrogate gains most: said of several, and no more than the intervals bear."""

from typing import Any

import pytest
from hand_made import HandMade, hand_made

from pipelines.report.html_page import Page, html_page
from pipelines.report.page import computed_report
from pipelines.report.ranking import CAVEAT, ranking
from pipelines.report.sentences import verdicts

TARGETS = ("twin", "cousin", "stranger")
WRONG = {
    "source": "000000000000", "aligned": "111111110000", "hot": "111111111000", "cold": "000000000000",
    "witness": "111111000000",
}  # fmt: skip


def report_of(experiment: HandMade, **changes: str) -> Any:
    wrong = WRONG | changes
    return computed_report(
        experiment.finish({f"outcomes/{name}/pgd/{t}": own for name, own in wrong.items() for t in TARGETS})
    )


@pytest.fixture
def experiment(tmp_path: Any) -> HandMade:
    attacks = {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}
    variants = {"hot": {"align": {"temperature": 16}}, "cold": {"align": {"temperature": 1}}}
    return hand_made(tmp_path, attacks=attacks, variants=variants)


def test_the_highest_gains_stand_in_their_order_beside_the_best_control(experiment: HandMade) -> None:
    report = report_of(experiment)
    (line,) = ranking(report)
    gains = {row["surrogate"]: row for row in report.means()}

    def said(name: str) -> str:
        row = gains[name]
        return f"{name} {row['gain']:+.1f} points ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"

    assert line.startswith(f"under pgd: controls aside, the highest gains are {said('hot')}, {said('aligned')}; ")
    # They differ on one image of twelve.
    assert "; between hot and aligned there is no detectable difference (" in line
    assert line.endswith(f"; the best control is {said('witness')}")
    page = html_page(Page("a", report))
    assert CAVEAT in page and line in page


def test_the_first_is_better_where_a_contrast_says_so(experiment: HandMade) -> None:
    (line,) = ranking(report_of(experiment, aligned="100000000000"))
    assert "; hot is better than aligned (" in line
    (line,) = ranking(report_of(experiment, aligned="0" * 12, cold="100000000000"))
    assert "; that hot is better than cold is not tested here (contrasts: [[hot, cold]] asks for it)" in line


def test_a_loss_is_not_among_the_highest_gains(experiment: HandMade) -> None:
    (line,) = ranking(report_of(experiment, source="110000000000", aligned="0" * 12))
    assert line.startswith("under pgd: controls aside, the only gain is hot +58.3 points") and "contrasts" not in line


def test_where_nothing_gains_that_is_said(experiment: HandMade) -> None:
    (line,) = ranking(report_of(experiment, aligned="0" * 12, hot="100000000000", witness="0" * 12))
    assert line.startswith("under pgd: controls aside, none gains beyond doubt, and the highest are hot +8.3 points")


def test_a_price_in_clean_accuracy_is_named(experiment: HandMade) -> None:
    outcomes = {f"outcomes/{name}/pgd/{t}": own for name, own in WRONG.items() for t in TARGETS}
    (line,) = ranking(computed_report(experiment.finish({**outcomes, "clean/hot": "1" * 12})))
    assert ") at -100.0 of clean accuracy, aligned" in line and line.count("of clean accuracy") == 1


def test_one_surrogate_is_not_ranked(experiment: HandMade) -> None:
    experiment.write(variants={})
    wrong = {f"outcomes/aligned/pgd/{t}": WRONG["aligned"] for t in TARGETS}
    assert ranking(computed_report(experiment.finish(wrong))) == []


@pytest.mark.parametrize("name", ["external", "external-near"])
def test_a_variant_may_be_called_external_where_no_images_were_made_elsewhere(experiment: HandMade, name: str) -> None:
    """It is compared with the source under the same attack, as any other, and ranked with them."""
    experiment.write(variants={name: {"align": {"temperature": 16}}})
    wrong = {"source": WRONG["source"], "aligned": WRONG["aligned"], name: WRONG["hot"]}
    outcomes = {f"outcomes/{name}/pgd/{t}": own for name, own in wrong.items() for t in TARGETS}
    report = computed_report(experiment.finish(outcomes))
    (line,) = (own for own in ranking(report) if own.startswith("under pgd: "))
    assert line.startswith("under pgd: controls aside, the highest gains are " + f"{name} +")
    (verdict,) = (own for own in verdicts(report) if own.startswith(f"{name} under pgd: "))
    assert verdict.startswith(f"{name} under pgd: transfers better than the source: ")
