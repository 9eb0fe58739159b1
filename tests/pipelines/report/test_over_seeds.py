"""The tables over several seeds, compared with what numpy and scipy make of the outcomes of each."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made import IMAGES, hand_made
from limits_by_hand import newcombe
from scipy import stats

from align_core.transfer import resampled_counts
from pipelines.experiment.config import load_experiment
from pipelines.failure import RunFailed
from pipelines.report.page import computed_report, make_report
from pipelines.report.sentences import notes, said_gain, verdicts
from pipelines.report.tabled import Report
from pipelines.run.command import RunResult
from pipelines.sweep.best import Best
from pipelines.sweep.command import _against_default

SEEDS = (3, 5, 8)
TARGETS = ("twin", "cousin", "stranger")
SOURCES = {"source": "near", "aligned": "near", "label_only": "near", "source-other": "other", "far": "other"}
BASELINES = {"near": "source", "other": "source-other"}
MEANS = {"(mean)": TARGETS, "(mean pair)": ("twin", "stranger")}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    rng = np.random.default_rng(4)

    def digits(wrong: float) -> str:
        return "".join(map(str, rng.choice(3, IMAGES, p=[1 - wrong, wrong / 2, wrong / 2])))

    made = {f"clean/{name}": digits(0.15) for name in ("near", "other", "seer", *TARGETS)}
    for name, seed in product(SOURCES, SEEDS):
        if name in ("aligned", "label_only", "far"):
            made[f"clean/{name}~{seed}"] = digits(0.2)
        for target in TARGETS:
            made[f"outcomes/{name}~{seed}/pgd/{target}"] = digits(0.6 if name in ("aligned", "far") else 0.3)
        made[f"outcomes/{name}~{seed}/pgd/@self"] = digits(0.8)
        made[f"adversarial/{name}~{seed}/pgd"] = "".join(map(str, rng.integers(1, 9, IMAGES)))
    return made


@pytest.fixture(scope="module")
def report(outcomes, tmp_path_factory) -> Report:
    experiment = hand_made(
        tmp_path_factory.mktemp("seeds"),
        seeds=list(SEEDS),
        controls=["label_only"],
        variants={"far": {"source": "other", "witnesses": ["near"]}},
        contrasts=[["far", "aligned"]],
        groups={"pair": ["twin", "stranger"]},
        attacks={"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}},
    )
    return computed_report(experiment.finish(outcomes))


def wrong(outcomes: dict[str, str], folder: str) -> np.ndarray:
    return np.array([digit != "0" for digit in outcomes[folder]])


def rates(outcomes: dict[str, str], name: str, seed: int, counted: dict[str, np.ndarray], weights: np.ndarray) -> Any:
    """The mean rate over targets for each row of weights, how often each image is drawn."""
    shares = pd.DataFrame()
    for target, counts in counted.items():
        hits = weights @ (wrong(outcomes, f"outcomes/{name}~{seed}/pgd/{target}") & counts).astype(int)
        with np.errstate(invalid="ignore"):
            shares[target] = 100 * hits / (weights @ counts.astype(int))
    return shares.mean(axis=1).to_numpy()  # targets without an image in a draw are left out of it


def counted(outcomes: dict[str, str], targets: tuple[str, ...], *sources: str) -> dict[str, np.ndarray]:
    right = np.logical_and.reduce([~wrong(outcomes, f"clean/{source}") for source in sources])
    return {target: right & ~wrong(outcomes, f"clean/{target}") for target in targets}


ONCE = np.ones((1, IMAGES), int)
DRAWS = np.concatenate(list(resampled_counts(IMAGES, seed=SEEDS[0]))).astype(int)


def check_gain(row: dict[str, Any], values: np.ndarray, draws_SR: np.ndarray, is_mean: bool) -> None:
    """The columns of a gain, from that of each seed on all images and in every resample."""
    spread = np.std(values, ddof=1)
    error = np.sqrt(spread**2 / len(SEEDS) + np.var(draws_SR.mean(axis=0), ddof=1))
    half = stats.t(len(SEEDS) - 1).ppf(0.975) * error
    low, high = np.percentile(draws_SR.mean(axis=0), [2.5, 97.5])
    expected = [values.mean(), low, high, spread, values.mean() - half, values.mean() + half]
    columns = ("gain", "gain_low", "gain_high", "gain_spread", "gain_both_low", "gain_both_high")
    assert [row[column] for column in columns] == pytest.approx(expected, abs=1e-3)
    if is_mean:
        assert row["p_value"] is None
    else:
        p_value = 2 * stats.t(len(SEEDS) - 1).sf(abs(values.mean()) / error)
        assert row["p_value"] == pytest.approx(p_value, rel=1e-4)
    assert row["seeds"] == len(SEEDS)


def test_every_row_of_transfer_is_the_mean_over_the_seeds(report, outcomes):
    frame = pd.DataFrame(report.transfer)
    assert list(dict.fromkeys(frame["surrogate"])) == list(SOURCES)
    for row in report.transfer:
        if row["target"].startswith("(mean") and row["target"] not in MEANS:
            continue  # by relation; computed as the others are
        source = SOURCES[row["surrogate"]]
        own = counted(outcomes, MEANS.get(row["target"], (row["target"],)), source)
        assert row["n"] == np.logical_or.reduce(list(own.values())).sum()
        by_seed = np.array([rates(outcomes, row["surrogate"], seed, own, ONCE)[0] for seed in SEEDS])
        draws_SR = np.stack([rates(outcomes, row["surrogate"], seed, own, DRAWS) for seed in SEEDS])
        limits = np.nanpercentile(draws_SR.mean(axis=0), [2.5, 97.5])
        assert (row["rate"], row["rate_spread"]) == pytest.approx((by_seed.mean(), by_seed.std(ddof=1)), abs=1e-3)
        assert (row["rate_low"], row["rate_high"]) == pytest.approx(tuple(limits), abs=1e-3)
        everyone = [
            wrong(outcomes, f"outcomes/{row['surrogate']}~{seed}/pgd/{target}").mean()
            for seed in SEEDS
            for target in own
        ]
        assert row["rate_all"] == pytest.approx(100 * np.mean(everyone), abs=1e-3)
        if row["surrogate"] == BASELINES[source]:
            assert row["gain"] is row["gain_spread"] is row["gain_both_low"] is row["p_value"] is None
            continue
        gains = by_seed - [rates(outcomes, BASELINES[source], seed, own, ONCE)[0] for seed in SEEDS]
        gains_SR = draws_SR - [rates(outcomes, BASELINES[source], seed, own, DRAWS) for seed in SEEDS]
        check_gain(row, gains, gains_SR[:, ~np.isnan(gains_SR).any(axis=0)], row["target"] in MEANS)


@pytest.mark.parametrize(("one", "other"), [("aligned", "label_only"), ("far", "aligned")])
def test_contrasts_compare_seed_by_seed(report, outcomes, one, other):
    """Also surrogates of two sources, on the images that count for both."""
    rows = [row for row in report.contrasts if (row["surrogate"], row["baseline"]) == (one, other)]
    assert [row["target"] for row in rows] == [*TARGETS, "(mean)"]
    for row in rows:
        targets = TARGETS if row["target"] == "(mean)" else (row["target"],)
        own = counted(outcomes, targets, SOURCES[one], SOURCES[other])
        gains = np.array(
            [rates(outcomes, one, s, own, ONCE)[0] - rates(outcomes, other, s, own, ONCE)[0] for s in SEEDS]
        )
        draws = np.stack([rates(outcomes, one, s, own, DRAWS) - rates(outcomes, other, s, own, DRAWS) for s in SEEDS])
        check_gain(row, gains, draws[:, ~np.isnan(draws).any(axis=0)], row["target"] == "(mean)")


def test_surrogates_have_the_mean_accuracy_and_its_spread(report, outcomes):
    for name in ("aligned", "label_only", "far"):
        (row,) = (own for own in report.surrogates if (own["surrogate"], own["attack"]) == (name, "(all)"))
        accuracies = [100 * (~wrong(outcomes, f"clean/{name}~{seed}")).mean() for seed in SEEDS]
        assert row["clean_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-3)
        assert row["clean_spread"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-3)
        assert isinstance(row["steps"], int)
    (row,) = (own for own in report.surrogates if (own["surrogate"], own["attack"]) == ("source", "(all)"))
    assert (row["clean_spread"], row["steps"]) == (0.0, None)


def test_seeds_has_what_each_gave_by_itself(report, outcomes):
    rows = {(row["surrogate"], row["seed"], row["target"]): row for row in report.seeds}
    targets = {row["target"] for row in report.transfer if row["surrogate"] == "far"}
    assert {target for name, _, target in rows if name == "far"} == targets
    own = counted(outcomes, TARGETS, "near")
    for seed in SEEDS:
        row = rows["aligned", seed, "(mean)"]
        rate = rates(outcomes, "aligned", seed, own, ONCE)[0]
        assert row["rate"] == pytest.approx(rate, abs=1e-3)
        assert row["gain"] == pytest.approx(rate - rates(outcomes, "source", seed, own, ONCE)[0], abs=1e-3)
        assert row["clean_accuracy"] == pytest.approx(
            100 * (~wrong(outcomes, f"clean/aligned~{seed}")).mean(), abs=1e-3
        )


def test_what_is_said_goes_by_the_interval_over_images_and_seeds(report):
    (row,) = (own for own in report.means() if own["surrogate"] == "aligned")
    (line,) = (line for line in verdicts(report) if line.startswith("aligned under pgd"))
    assert f"({row['gain_both_low']:+.1f} to {row['gain_both_high']:+.1f})" in line
    assert line.endswith("passes for each of 3 seeds")
    assert ("transfers better than" in line) == (row["gain_both_low"] > 0)
    assert any("means over 3 seeds" in note for note in notes(report))


def test_what_one_seed_lacks_is_left_out_and_said(tmp_path):
    attacks = {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}
    experiment = hand_made(tmp_path, seeds=[3, 5], attacks=attacks)
    experiment.finish()
    blueprint = experiment.blueprint()
    table = blueprint.cell("aligned~5", "pgd", "twin").table
    blueprint.store.delete(table.finished_file)
    table.write_failure(blueprint.store, 0, "chunk 0: the logits of twin are not finite for 00004", final=True)
    blueprint.check_finished()
    report, _ = make_report(blueprint)
    rows = {row["target"]: row for row in report.transfer if row["surrogate"] == "aligned"}
    assert [target for target in TARGETS if target in rows] == ["cousin", "stranger"]
    blank = [target for target, row in rows.items() if row["rate"] is None]
    assert blank == ["(mean)", "(mean same_architecture)"]
    assert [rows[target]["n"] for target in blank] == [0, 0]
    assert not any(line.startswith("aligned") for line in verdicts(report))
    page = (experiment.report / "report.html").read_text()
    assert "Not there: outcomes/aligned~5/pgd/twin" in page
    assert "The (mean) of aligned under pgd is blank" in page


def test_where_one_seed_has_nothing_there_is_nothing_to_report(tmp_path):
    experiment = hand_made(tmp_path, seeds=[3, 5])
    experiment.finish()
    blueprint = experiment.blueprint()
    for cell in blueprint.cells():
        if cell.surrogate.endswith("~5"):
            blueprint.store.delete(cell.table.finished_file)
            cell.table.write_failure(blueprint.store, 0, "chunk 0: not finite", final=True)
    blueprint.check_finished()
    with pytest.raises(RunFailed, match="there is nothing to report that every seed has: outcomes/source~5/pgd/@self"):
        make_report(blueprint)


def _one_attack(tmp_path: Path, outcomes: dict[str, str], **changes: Any) -> Any:
    attacks = {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}
    experiment = hand_made(tmp_path, **({"seeds": [3, 5], "controls": ["label_only"], "attacks": attacks} | changes))
    return computed_report(experiment.finish(outcomes))


@pytest.mark.parametrize("seeds", [[3, 5], None])
def test_one_image_bears_no_claim(tmp_path, seeds):
    """Whatever it shows: all its resamples are alike, and that is no certainty. Newcombe's limits stand for them."""
    names = [f"aligned~{seed}" for seed in seeds] if seeds else ["aligned"]
    folders = [f"outcomes/{name}/pgd/{target}" for name in names for target in TARGETS]
    report = _one_attack(tmp_path, {"clean/near": "0" + "1" * 11} | dict.fromkeys(folders, "1" * 12), seeds=seeds)
    (row,) = (own for own in report.means() if own["surrogate"] == "aligned")
    assert (row["n"], row["gain"]) == (1, 100.0)
    limits = newcombe(np.array([True]), np.array([False]))
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(limits, abs=1e-4)
    assert (row["gain_both_low"], row["gain_both_high"]) == (
        (row["gain_low"], row["gain_high"]) if seeds else (None, None)
    )
    by_target = [own for own in report.transfer if own["surrogate"] == "aligned" and own["target"] in TARGETS]
    assert all(own["p_value"] is None or own["p_value"] == 1 for own in by_target)
    (line,) = (line for line in verdicts(report) if line.startswith("aligned under pgd"))
    assert "better" not in line
    assert "shows no detectable difference from the source: +100.0 points (-12.2 to +100.0)" in line
    assert "no detectable difference from label_only: +100.0 points (-12.2 to +100.0)" in line


def test_chosen_settings_against_those_of_aligned_have_both_intervals_reversed(tmp_path, outcomes):
    """contrasts.csv has the variant `default` against `aligned`, and a sweep says the reverse."""
    folders = [f"outcomes/aligned~3/pgd/{target}" for target in TARGETS]
    report = _one_attack(tmp_path, dict.fromkeys(folders, "111100000000"), variants={"default": {}})
    (row,) = (own for own in report.contrasts if own["baseline"] == "aligned" and own["target"] == "twin")
    assert row["gain"] < 0 and row["gain_both_low"] < row["gain_both_high"]
    result = RunResult("", "", report=report)
    best = Best(load_experiment(tmp_path / "experiment.yaml"), "aligned", "default")
    (found,) = (own for own in _against_default(result, best) if own["target"] == "twin")
    assert found["gain"] == -row["gain"]
    assert (found["gain_both_low"], found["gain_both_high"]) == (-row["gain_both_high"], -row["gain_both_low"])
    assert said_gain(found).endswith(f"({-row['gain_both_high']:+.1f} to {-row['gain_both_low']:+.1f})")


@pytest.mark.parametrize(("seeds", "is_noted"), [([3, 5], True), ([3, 5, 7], False)])
def test_two_seeds_are_said_to_be_few(tmp_path: Path, seeds: list[int], is_noted: bool) -> None:
    notes = hand_made(tmp_path, seeds=seeds).blueprint().inspected.notes
    assert any(note.startswith("seeds: with two of them") for note in notes) == is_noted
