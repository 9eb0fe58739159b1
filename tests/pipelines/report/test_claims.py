"""The four claims: an answer says yes or no where its interval excludes zero, and nothing beyond that."""

import re
from pathlib import Path
from typing import Any

import pytest
from hand_made import hand_made

from pipelines.report.claims import claims
from pipelines.report.page import computed_report, make_report
from pipelines.report.tabled import Report


def report_of(reasons: list[dict[str, Any]] = [], **change: Any) -> Report:  # noqa: B006
    """A report of one aligned surrogate, of which `change` has figures of robustness.csv by kind of images."""
    surrogate: Any = {"surrogate": "aligned", "loss_before": 1.0, "clean_accuracy": 90.0}
    robustness: Any = [
        {
            "surrogate": "aligned", "kind": kind, "name": name, "severity": None, "seeds": seeds, "accuracy": 50.0,
            "accuracy_low": 40.0, "accuracy_high": 60.0, "change": value, "change_low": low, "change_high": high,
            "change_both_low": None if seeds == 1 else low - 10, "change_both_high": None if seeds == 1 else high + 10,
        }
        for kind, (name, value, low, high, seeds) in change.items()
    ]  # fmt: skip
    return Report("", [], [], [surrogate], robustness, [], [], reasons)  # type: ignore[arg-type]


def answers(report: Report, question: str) -> list[str]:
    (found,) = (own.answers for own in claims(report) if question in own.question)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("", -3.0, -5.0, -1.0, 1), "no, it fell (-3.0 points, -5.0 to -1.0)"),
        (("", -1.0, -2.5, 0.5, 1), "no detectable change (-1.0 points, -2.5 to +0.5)"),
        (("", 3.0, 1.0, 5.0, 1), "it rose (+3.0 points, +1.0 to +5.0)"),
        (("", 3.0, 1.0, 5.0, 3), "no detectable change (+3.0 points, -9.0 to +15.0)"),
    ],
)
def test_clean_accuracy(change: Any, expected: str) -> None:
    assert answers(report_of(clean=change), "clean accuracy") == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("pgd", 3.0, 1.0, 5.0, 1), "attacked by pgd: yes (50.0 % right, +3.0 points, +1.0 to +5.0)"),
        (("pgd", -3.0, -5.0, -1.0, 1), "attacked by pgd: no, the contrary (50.0 % right, -3.0 points, -5.0 to -1.0)"),
        (("(all)", 0.0, 0.0, 0.0, 1), "under all attacks: no detectable change (50.0 % right, +0.0 points, "),
        (("pgd", 3.0, 3.0, 3.0, 1), "attacked by pgd: not known, as there is no interval (50.0 % right"),
    ],
)
def test_robustness(change: Any, expected: str) -> None:
    (found,) = answers(report_of(attack=change), "more robust")
    assert found.startswith(expected)


def test_a_smoother_surface_is_a_fall_and_what_was_not_measured_is_said() -> None:
    row = {
        "surrogate": "aligned", "measure": "gradient_l2", "point": "clean", "counterpart": "", "seeds": 1,
        "value": 0.3, "change": -0.2, "change_low": -0.25, "change_high": -0.15, "change_both_low": None,
        "change_both_high": None, "converged": None,
    }  # fmt: skip
    (found,) = answers(report_of([row]), "smoother")
    assert found == ("the input gradient's length at clean points: yes (0.5 to 0.3, a change of -0.2 (-0.25 to -0.15))")
    (found,) = answers(report_of([row | {"change_high": 0.01}]), "smoother")
    assert ": no detectable change (" in found
    (found,) = answers(report_of([row | {"change": 0.2, "change_low": 0.1, "change_high": 0.3}]), "smoother")
    assert ": no, the contrary (" in found
    several = {"seeds": 3, "change_both_low": -0.6, "change_both_high": 0.2}
    (found,) = answers(report_of([row | several]), "smoother")
    assert ": no detectable change (0.5 to 0.3, a change of -0.2 (-0.6 to +0.2))" in found
    (found,) = answers(report_of([row | {"measure": "curvature", "converged": 74.0}]), "smoother")
    assert found.startswith("the largest magnitude of an eigenvalue") and "it converged on 74 % of the images" in found
    (found,) = answers(report_of([row | {"point": "attacked"}]), "smoother")
    assert found.startswith("not measured: the section `reasons: {}`")


def test_a_yes_of_a_network_that_lost_clean_accuracy_says_so() -> None:
    """One that predicts the same of every image is robust and smooth."""
    row = {
        "surrogate": "aligned", "measure": "gradient_l2", "point": "clean", "counterpart": "", "seeds": 1,
        "value": 0.3, "change": -0.2, "change_low": -0.25, "change_high": -0.15, "change_both_low": None,
        "change_both_high": None, "converged": None,
    }  # fmt: skip
    fell = report_of([row], clean=("", -49.0, -55.0, -42.0, 1), attack=("pgd", 3.0, 1.0, 5.0, 1))
    for question in ("more robust", "smoother"):
        (found,) = answers(fell, question)
        assert ": yes (" in found and found.endswith("; but its clean accuracy fell by 49.0 points")
    kept = report_of([row], clean=("", -1.0, -3.0, 1.0, 1))
    assert "but" not in answers(kept, "smoother")[0]


def test_the_page_answers_for_every_aligned_surrogate_from_its_tables(tmp_path: Path) -> None:
    experiment = hand_made(
        tmp_path, controls=["label_only", "witness"], variants={"hot": {"align": {"temperature": 9}}}
    )
    blueprint = experiment.finish({"outcomes/aligned/pgd/@self": "0" * 12, "outcomes/source/pgd/@self": "1" * 12})
    for name in ("aligned", "hot", "label_only"):
        card = blueprint.store.read_json(f"models/{name}/card.json") or {}
        effect = {"images": 4, "before": {"loss": 2.0, "agreement": 50.0}, "after": {"loss": 1.0, "agreement": 60.0}}
        blueprint.store.write_json(
            f"models/{name}/card.json", card | ({} if name == "label_only" else {"effect": effect})
        )
    report = computed_report(experiment.blueprint())
    assert list(dict.fromkeys(own.surrogate for own in claims(report))) == ["aligned", "hot"]
    (pgd,) = (own for own in answers_of(report, "aligned", "more robust") if own.startswith("attacked by pgd"))
    assert re.fullmatch(r"attacked by pgd: yes \(100\.0 % right, \+100\.0 points, \+\d+\.\d to \+100\.0\)", pgd)
    make_report(experiment.blueprint())
    page = (experiment.report / "report.html").read_text()
    assert pgd in page and "Is its loss surface smoother?" in page


def answers_of(report: Report, surrogate: str, question: str) -> list[str]:
    (found,) = (o.answers for o in claims(report) if o.surrogate == surrogate and question in o.question)
    return found
