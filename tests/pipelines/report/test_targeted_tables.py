"""The targeted rates of the tables, counted by hand and resampled by other means; blank for untargeted attacks."""

from pathlib import Path

import numpy as np
import pytest
from hand_made import IMAGES, HandMade, hand_made
from statsmodels.stats.proportion import proportion_confint

from align_core.transfer import resampled_counts
from pipelines.report import tables
from pipelines.report.headline import headline
from pipelines.report.html_page import Page, html_page
from pipelines.report.page import computed_report
from pipelines.report.rows import TransferRow
from pipelines.report.sentences import verdicts
from pipelines.report.tabled import Report

# A digit is the predicted class minus the label, and a targeted attack leads to the class after the label: 1 is a hit.
OUTCOMES = {
    "clean/near": "100000000000",
    "clean/twin": "020000000000",
    "outcomes/aligned/to/twin": "110012100100",
    "outcomes/aligned/to/cousin": "121110000000",
    "outcomes/aligned/to/stranger": "000000000001",
    "outcomes/aligned/to/@self": "112100000011",
    "outcomes/aligned/mi/twin": "111111111111",
    "adversarial/aligned/to": "800000000000",
}
LEFT_OUT = {"twin": (0, 1), "cousin": (0,), "stranger": (0,)}
BLANK = {"targeted_rate": None, "targeted_low": None, "targeted_high": None}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    attacks = {"to": {"method": "logit", "eps": "8/255", "steps": 5}, "mi": {"method": "mi", "eps": "4/255"}}
    return hand_made(tmp_path_factory.mktemp("targeted"), attacks=attacks, controls=["ensemble"])


@pytest.fixture(scope="module")
def report(experiment: HandMade) -> Report:
    return computed_report(experiment.finish(OUTCOMES))


def row(report: Report, target: str, attack: str = "to") -> dict[str, object]:
    (found,) = (
        one
        for one in report.transfer
        if (one["surrogate"], one["attack"], one["target"]) == ("aligned", attack, target)
    )
    return dict(found)


def test_a_cell_counted_by_hand(report: Report) -> None:
    found = row(report, "twin")
    low, high = proportion_confint(3, 10, method="wilson")  # images 4, 6 and 9; 0 and 1 do not count
    assert (found["n"], found["rate"], found["targeted_rate"]) == (10, 40.0, 30.0)
    assert (found["targeted_low"], found["targeted_high"]) == pytest.approx((100 * low, 100 * high), abs=1e-4)
    assert found["gain"] == 30.0, "of the targeted rate, as the source has no hit"


@pytest.mark.parametrize("seeds", [None, [3, 5]], ids=["one seed", "two seeds"])
def test_gains_are_those_of_an_untargeted_attack_that_is_wrong_where_this_one_hits(
    seeds: list[int] | None, tmp_path: Path
) -> None:
    """Over single targets, means and groups, and in contrasts, of surrogates of two sources."""
    rng, reports = np.random.default_rng(2), {}
    digits: dict[str, str] = {}
    for kind, towards in (("targeted", "next"), ("untargeted", "away")):
        (tmp_path / kind).mkdir()
        experiment = hand_made(
            tmp_path / kind,
            seeds=seeds,
            controls=["ensemble"],
            variants={"far": {"source": "other", "witnesses": ["near"]}},
            contrasts=[["far", "aligned"]],
            groups={"pair": ["twin", "stranger"]},
            attacks={"to": {"method": "pgd", "eps": "4/255", "towards": towards}},
        )
        for cell in experiment.blueprint().cells():
            digits.setdefault(cell.table.folder, "".join(map(str, rng.choice(3, IMAGES))))
        hits = {folder: "".join("1" if digit == "1" else "0" for digit in own) for folder, own in digits.items()}
        clean = {"clean/near": "100000000000", "clean/other": "000010000000", "clean/twin": "020000000000"}
        reports[kind] = computed_report(experiment.finish(clean | (digits if towards == "next" else hits)))
    targeted, other = reports["targeted"], reports["untargeted"]
    gains = {name for name in TransferRow.__annotations__ if name.startswith(("gain", "p_"))} - {"gradients"}
    assert any(row["gain"] for row in targeted.transfer) and any(row["gain"] for row in targeted.contrasts)
    for own, expected in zip(targeted.transfer, other.transfer, strict=True):
        assert {name: own[name] for name in gains} == {name: expected[name] for name in gains}
        limits = [own["targeted_rate"], own["targeted_low"], own["targeted_high"]]
        assert limits == [expected["rate"], expected["rate_low"], expected["rate_high"]]
    assert targeted.contrasts == other.contrasts
    assert [row["gain"] for row in targeted.seeds] == [row["gain"] for row in other.seeds]


def test_whatever_is_said_of_a_targeted_gain_names_the_rate(report: Report) -> None:
    (said,) = (line for line in verdicts(report) if line.startswith("aligned under to"))
    assert said.startswith("aligned under to (targeted rate): ")
    assert not any("targeted" in line for line in verdicts(report) if line.startswith("aligned under mi"))


def test_every_row_has_the_gradients_that_its_attack_took(report: Report) -> None:
    costs = {(one["surrogate"], one["attack"]): one["gradients"] for one in report.transfer}
    assert costs == {
        (surrogate, attack): steps * members
        for surrogate, members in (("source", 1), ("aligned", 1), ("ensemble", 2))  # a pass through each member
        for attack, steps in (("to", 5), ("mi", 10))
    }


def test_all_means_are_resampled_in_one_pass(
    experiment: HandMade, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    monkeypatch.setattr(tables, "resampled_counts", lambda *given: passes.append(given) or resampled_counts(*given))
    assert computed_report(experiment.blueprint()) == report
    assert passes == [(IMAGES, 0)]


def test_means_are_resampled_with_the_draws_of_the_rates(experiment: HandMade, report: Report) -> None:
    hit = {target: np.array([d == "1" for d in OUTCOMES[f"outcomes/aligned/to/{target}"]]) for target in LEFT_OUT}
    counts = np.concatenate(list(resampled_counts(IMAGES, 0))).astype(float)
    shares, plain = [], []
    for target, left_out in LEFT_OUT.items():
        eligible = np.ones(IMAGES, bool)
        eligible[list(left_out)] = False
        drawn = counts[:, eligible].sum(axis=1)
        with np.errstate(invalid="ignore"):
            shares.append(np.where(drawn > 0, counts[:, eligible & hit[target]].sum(axis=1) / drawn, np.nan))
        plain.append(hit[target][eligible].mean())
    low, high = np.quantile(100 * np.nanmean(shares, axis=0), [0.025, 0.975])
    found = row(report, "(mean)")
    assert found["targeted_rate"] == pytest.approx(100 * np.mean(plain), abs=1e-4)
    assert (found["targeted_low"], found["targeted_high"]) == pytest.approx((low, high), abs=1e-4)
    assert row(report, "(mean same_architecture)")["targeted_rate"] == row(report, "twin")["targeted_rate"]


def test_untargeted_attacks_have_no_targeted_rate(report: Report) -> None:
    for target in ("twin", "cousin", "(mean)", "(mean cross_family)"):
        assert row(report, target, "mi").items() >= BLANK.items()
    assert row(report, "twin", "mi")["rate"] == 100


def test_surrogates(report: Report) -> None:
    (found,) = (one for one in report.surrogates if (one["surrogate"], one["attack"]) == ("aligned", "to"))
    assert found["whitebox_rate"] == pytest.approx(100 * 6 / 12, abs=1e-4)
    assert found["whitebox_targeted_rate"] == pytest.approx(100 * 5 / 12, abs=1e-4)
    assert found["mean_ssim"] == pytest.approx((11 + 0.5) / 12, abs=1e-4)
    others = [one for one in report.surrogates if one["attack"] != "to"]
    assert {one["whitebox_targeted_rate"] for one in others} == {None}


def test_it_is_on_the_page_and_in_mlflow(report: Report) -> None:
    page = html_page(Page("a", report))
    assert "<th>targeted rate</th>" in page and "takes for the class that a targeted attack leads to" in page
    metrics = headline(report, "aligned", "to")
    assert metrics["targeted_rate"] == row(report, "(mean)")["targeted_rate"]
    assert "targeted_rate" not in headline(report, "aligned", "mi")
