"""The report of a matrix: which cells it has, over which targets its means are, and what is compared on which."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hand_made import IMAGES, HandMade, hand_made
from limits_by_hand import limits_of_gain, limits_of_rate

from align_core.errors import InputError
from align_core.transfer import resampled_counts
from pipelines import load_results
from pipelines.report.drawing import as_png
from pipelines.report.drawn import white_box_rates
from pipelines.report.figures import targets_across, transfer_heatmaps
from pipelines.report.outcomes import read_outcomes
from pipelines.report.page import computed_report, make_report
from pipelines.report.sentences import broken_controls, verdicts
from pipelines.report.tables import TableMaker
from pipelines.stages.blueprint import Blueprint

Row = dict[str, Any]
MATRIX = ("near", "twin", "stranger")
CHANGES: dict[str, Any] = {
    "source": None, "targets": None, "matrix": list(MATRIX),
    "controls": ["label_only", "witness", "ensemble"],
    "variants": {"to_twin": {"source": "near", "witnesses": ["twin"]}},
    "contrasts": [["source-near", "source-stranger"]],
    "groups": {"pair": ["twin", "stranger"]},
}  # fmt: skip
# surrogate -> (source, baseline, targets, networks of which the mean predicts)
OWN = {
    f"{role}-{source}": (source, f"source-{source}", tuple(target for target in MATRIX if target != source))
    for role, source in product(("source", "aligned", "label_only"), MATRIX)
}
OWN |= {
    "witness": ("seer", "witness", MATRIX),
    **{f"ensemble-{source}": OWN[f"source-{source}"] for source in MATRIX},
    "to_twin": ("near", "source-near", ("stranger",)),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    rng = np.random.default_rng(5)

    def digits(wrong: float) -> str:
        return "".join(map(str, rng.choice(3, IMAGES, p=[1 - wrong, wrong / 2, wrong / 2])))

    made = {f"clean/{name}": digits(0.15) for name in (*MATRIX, "seer")}
    for (surrogate, (_, _, targets)), attack in product(OWN.items(), ("pgd", "mi")):
        made |= {f"outcomes/{surrogate}/{attack}/{target}": digits(0.4) for target in (*targets, "@self")}
    return made


@pytest.fixture(scope="module")
def blueprint(outcomes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    return hand_made(tmp_path_factory.mktemp("matrix"), **CHANGES).finish(outcomes)


@pytest.fixture(scope="module")
def maker(blueprint: Blueprint) -> TableMaker:
    return TableMaker(blueprint, read_outcomes(blueprint))


@pytest.fixture(scope="module")
def wrong(outcomes: dict[str, str]) -> Callable[..., npt.NDArray[np.bool_]]:
    """(part of the path of a table, ...) -> which images are misclassified there."""
    return lambda *parts: np.array([digit != "0" for digit in outcomes["/".join(parts)]])


def mean_over(cells: list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]) -> tuple[float, npt.NDArray[Any]]:
    """The mean over targets of the share of images that are wrong among those that count, in percent: (count, wrong) of
    each target -> the mean, and that of each resample."""
    draws = np.concatenate(list(resampled_counts(IMAGES, seed=0))).astype(int)
    once = np.mean([100 * (count & is_wrong).sum() / count.sum() for count, is_wrong in cells])
    with np.errstate(invalid="ignore"):
        drawn = np.array([100 * (draws @ (count & is_wrong)) / (draws @ count) for count, is_wrong in cells])
        return float(once), np.nansum(drawn, axis=0) / (~np.isnan(drawn)).sum(axis=0)


def only(rows: list[Any], **wanted: str) -> Row:
    (found,) = (row for row in rows if wanted.items() <= row.items())
    return dict(found)


def test_every_surrogate_has_the_targets_that_it_does_not_know(maker: TableMaker) -> None:
    rows = maker.transfer()
    cells = {(row["surrogate"], row["target"]) for row in rows if not row["target"].startswith("(")}
    assert cells == {(name, target) for name, (_, _, targets) in OWN.items() for target in targets}
    groups = {(row["surrogate"], row["target"]) for row in rows if row["target"].startswith("(mean pair")}
    assert groups == {(name, "(mean pair)") for name in OWN}


def test_means_and_gains_are_over_the_own_targets_of_a_surrogate(maker: TableMaker, wrong: Any) -> None:
    rows = maker.transfer()
    for (name, (source, baseline, own)), attack in product(OWN.items(), ("pgd", "mi")):
        for shown, targets in (("(mean)", own), ("(mean pair)", [t for t in own if t in ("twin", "stranger")])):
            row = only(rows, surrogate=name, attack=attack, target=shown)
            counts = {t: ~wrong("clean", source) & ~wrong("clean", t) for t in targets}
            mean, drawn = mean_over([(counts[t], wrong("outcomes", name, attack, t)) for t in targets])
            assert row["n"] == np.any(list(counts.values()), axis=0).sum()
            assert row["rate"] == pytest.approx(mean, abs=1e-3)
            sides = [(counts[t], wrong("outcomes", name, attack, t)) for t in targets]
            assert (row["rate_low"], row["rate_high"]) == pytest.approx(limits_of_rate(sides, drawn), abs=1e-3)
            if name == baseline:
                assert row["gain"] is None
                continue
            base, base_drawn = mean_over([(counts[t], wrong("outcomes", baseline, attack, t)) for t in targets])
            assert row["gain"] == pytest.approx(mean - base, abs=1e-3)
            both = [(*side, wrong("outcomes", baseline, attack, t)) for side, t in zip(sides, targets, strict=True)]
            limits = limits_of_gain(both, drawn - base_drawn)
            assert (row["gain_low"], row["gain_high"]) == pytest.approx(limits, abs=1e-3)


def test_contrasts_are_over_the_targets_and_images_of_both(maker: TableMaker, wrong: Any) -> None:
    rows = maker.contrasts()
    pairs = {(row["surrogate"], row["baseline"]) for row in rows}
    assert pairs == {
        *((f"aligned-{own}", f"{control}-{own}") for own in MATRIX for control in ("label_only", "ensemble")),
        *((f"aligned-{own}", "witness") for own in MATRIX),
        *(("to_twin", other) for other in ("label_only-near", "witness", "ensemble-near", "aligned-near")),
        ("source-near", "source-stranger"),
    }  # fmt: skip
    for (name, baseline), attack in product(pairs, ("pgd", "mi")):
        (source, _, own), (other, _, others) = OWN[name], OWN[baseline]
        targets = [target for target in own if target in others]
        found = [row for row in rows if (row["surrogate"], row["baseline"], row["attack"]) == (name, baseline, attack)]
        assert [row["target"] for row in found] == [*targets, "(mean)"]
        counts = {t: ~wrong("clean", source) & ~wrong("clean", other) & ~wrong("clean", t) for t in targets}
        assert [row["n"] for row in found[:-1]] == [count.sum() for count in counts.values()]
        sides = [
            mean_over([(counts[t], wrong("outcomes", one, attack, t)) for t in targets]) for one in (name, baseline)
        ]
        assert found[-1]["gain"] == pytest.approx(sides[0][0] - sides[1][0], abs=1e-3)
        both = [(counts[t], *(wrong("outcomes", one, attack, t) for one in (name, baseline))) for t in targets]
        limits = limits_of_gain(both, sides[0][1] - sides[1][1])
        assert (found[-1]["gain_low"], found[-1]["gain_high"]) == pytest.approx(limits, abs=1e-3)


def test_the_diagonal_is_the_white_box_rate_of_each_source(blueprint: Blueprint, maker: TableMaker, wrong: Any) -> None:
    rates = white_box_rates(blueprint, maker.surrogates())
    assert set(rates) == {(attack, f"source-{own}", own) for own in MATRIX for attack in ("pgd", "mi")}
    for (attack, surrogate, target), rate in rates.items():
        right = ~wrong("clean", target)
        assert rate == pytest.approx(100 * wrong("outcomes", surrogate, attack, "@self")[right].mean(), abs=1e-3)
    transfer = maker.transfer()
    drawn = as_png(*transfer_heatmaps(transfer, "title", rates))
    assert drawn != as_png(*transfer_heatmaps(transfer, "title"))
    assert drawn != as_png(*transfer_heatmaps(transfer, "title", dict.fromkeys(rates, 3.0)))
    assert targets_across(transfer, rates) == ["(mean)", *MATRIX]  # the first row has no cell of the first


def test_the_page_says_that_means_are_over_different_targets(blueprint: Blueprint) -> None:
    report, _ = make_report(blueprint)
    page = blueprint.store.read("report/report.html").decode()
    assert "Each of near, twin, stranger is a source, and a target of the others." in page
    assert "means of surrogates of different sources are over different targets" in page
    told = [line for line in verdicts(report) if line.startswith("aligned-twin under mi: ")]
    (line,) = told
    assert all(f"{control}: " in line for control in ("label_only-twin", "witness", "ensemble-twin"))


def test_a_broken_control_of_a_matrix_is_named(maker: TableMaker) -> None:
    rows = maker.surrogates()
    for row in rows:
        if row["surrogate"] == "label_only-twin":
            row |= {"clean_change": -9.0, "clean_change_high": -3.0}
    found = broken_controls([row for row in rows if not row["surrogate"].startswith("label_only-s")])
    assert found["label_only-twin"] == "label_only-twin lost 9.0 points of clean accuracy and is a broken control"


def test_results_have_no_cell_of_a_model_against_itself(blueprint: Blueprint) -> None:
    make_report(blueprint)
    results = load_results(Path(blueprint.experiment.factories or "") / "experiment.yaml")
    with pytest.raises(InputError, match="there is no target 'near'"):
        results.outcomes("source-near", "pgd", "near")


def test_a_matrix_without_witnesses_has_its_sources_alone(tmp_path: Path) -> None:
    made = hand_made(tmp_path, **CHANGES | {"witnesses": None, "controls": None, "variants": None})
    report = computed_report(made.finish({"outcomes/source-near/pgd/twin": "110000000000"}))
    assert {row["surrogate"] for row in report.transfer} == {f"source-{own}" for own in MATRIX}
    assert all(row["gain"] is None for row in report.transfer)
    assert all(row["witness_agreement"] is None for row in report.surrogates)
    rates = {row["target"]: row["rate"] for row in report.transfer if row["attack"] == "pgd" and row["rate"]}
    assert rates["twin"] == pytest.approx(100 * 2 / 12, abs=1e-4)
    assert rates["(mean)"] == pytest.approx(100 / 12, abs=1e-4)
    assert verdicts(report) == []


def test_a_mean_is_blank_where_one_of_the_own_targets_is_not_there(blueprint: Blueprint, tmp_path: Path) -> None:
    made: HandMade = hand_made(tmp_path, **CHANGES)
    found = made.finish()
    found.broken["outcomes/source-near/pgd/twin"] = "it broke"
    frame = pd.DataFrame(TableMaker(found, read_outcomes(found)).transfer())
    means = frame[(frame["target"] == "(mean)") & (frame["attack"] == "pgd")].set_index("surrogate")
    blank = {name for name, row in means.iterrows() if pd.isna(row["rate"])}
    assert blank == {"source-near", "aligned-near", "label_only-near", "ensemble-near"}  # not to_twin, nor the others


def test_a_matrix_of_several_seeds_has_the_means_over_them(tmp_path: Path) -> None:
    twice = {
        f"outcomes/{surrogate}/pgd/{target}": digits
        for surrogate, target, digits in (
            ("source-near~3", "twin", "111111000000"),  # 6 and 3 of 12 images, 3 on the other target
            ("source-near~5", "twin", "111000000000"),
            ("source-near~3", "stranger", "000000000111"),
            ("aligned-near~5", "stranger", "111111111111"),
            ("to_twin~3", "stranger", "000000111111"),
            ("source-near~3", "@self", "111111111000"),
            ("source-near~5", "@self", "111111111111"),
        )
    }
    blueprint = hand_made(tmp_path, **CHANGES, seeds=[3, 5]).finish(twice)
    report = computed_report(blueprint)

    def row(surrogate: str, target: str) -> Row:
        return only(report.transfer, surrogate=surrogate, attack="pgd", target=target)

    assert {own["target"] for own in report.transfer if own["surrogate"] == "to_twin"} >= {"stranger", "(mean)"}
    assert (row("source-near", "twin")["rate"], row("source-near", "stranger")["rate"]) == (37.5, 12.5)
    assert row("source-near", "(mean)")["rate"] == 25.0
    assert (row("aligned-near", "(mean)")["rate"], row("aligned-near", "(mean)")["gain"]) == (25.0, 0.0)
    # Of its only target: 50 points with the first seed, of which the source has 25, and none with the other.
    assert (row("to_twin", "(mean)")["rate"], row("to_twin", "(mean)")["gain"]) == (25.0, 12.5)
    contrast = only(report.contrasts, surrogate="to_twin", baseline="aligned-near", attack="pgd", target="(mean)")
    assert contrast["gain"] == pytest.approx((50 - 100) / 2)
    assert only(report.contrasts, surrogate="source-near", baseline="source-stranger", attack="pgd", target="twin")
    assert white_box_rates(blueprint, report.surrogates)["pgd", "source-near", "near"] == 87.5
