"""The tables about reasons, against pandas and scipy on the stored values of single images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made import HandMade
from reasons_by_hand import SAMPLE, reasoned
from scipy import stats

from align_core.transfer import resampled_counts
from pipelines import Results, load_results
from pipelines.cli import main
from pipelines.report.correlation_table import correlation_rows
from pipelines.report.reason_rows import MEASURES

OWN = 3 * 4 + 2 * 2 + 2 * 7
COMPARED = 9


@pytest.fixture(scope="module")
def results(with_reasons: HandMade) -> Results:
    return load_results(with_reasons.file)


def of(frame: pd.DataFrame, **columns: str) -> pd.DataFrame:
    for column, value in columns.items():
        frame = frame[frame[column] == value]
    return frame


def one(frame: pd.DataFrame, **columns: str) -> pd.Series:
    (row,) = of(frame, **columns).to_dict("records")
    return pd.Series(row)


def percentiles(values: np.ndarray) -> list[float]:
    """95 % of the means of the values in the resamples of the tables, drawn image by image."""
    draws = np.concatenate(list(resampled_counts(len(values), seed=0)))
    return [float(limit) for limit in np.quantile([np.repeat(values, own).mean() for own in draws], [0.025, 0.975])]


def test_there_is_a_row_for_every_surrogate_measure_point_and_counterpart(results: Results) -> None:
    rows = results.reasons
    assert set(rows["measure"]) == MEASURES.keys()
    assert not rows.duplicated(["surrogate", "measure", "point", "counterpart"]).any()
    counts = rows.groupby(["surrogate", "counterpart"], sort=False).size().to_dict()
    others = ["seer", "twin", "cousin", "squeezed", "(mean)"]
    assert counts == {
        (name, other): COMPARED if other else OWN
        for name in ("source", "aligned", "witness", "warm")
        for other in ("", *others)
        if (name, other) != ("witness", "seer")
    }
    roles = rows.drop_duplicates("counterpart").set_index("counterpart")["role"].to_dict()
    assert roles == {"": "", "seer": "witness", **dict.fromkeys(others[1:], "target")}


@pytest.mark.parametrize(
    ("measure", "point", "other", "scale"),
    [("curvature", "random", "", 1), ("loss_along", "1.5", "", 1), ("agreement", "clean", "seer", 100),
     ("orthogonal_share", "attacked", "twin", 100), ("cosine", "attacked", "cousin", 1)],
)  # fmt: skip
def test_values_and_paired_changes_have_their_intervals(
    results: Results, measure: str, point: str, other: str, scale: int
) -> None:
    row = one(results.reasons, surrogate="aligned", measure=measure, point=point, counterpart=other)
    after, before = (
        scale * results.reasons_of(name, other or "@self")[f"{measure}/{point}"].to_numpy(dtype=float)
        for name in ("aligned", "source")
    )
    assert (row["n"], row["seeds"]) == (SAMPLE, 1)
    assert row["value"] == pytest.approx(after.mean(), rel=1e-5)
    assert [row["value_low"], row["value_high"]] == pytest.approx(percentiles(after), rel=1e-5)
    assert row["change"] == pytest.approx((after - before).mean(), rel=1e-4, abs=1e-9)
    assert [row["change_low"], row["change_high"]] == pytest.approx(percentiles(after - before), rel=1e-4, abs=1e-9)


def test_the_source_has_no_change_and_curvature_says_how_often_it_converged(results: Results) -> None:
    rows = results.reasons
    assert of(rows, surrogate="source")[["change", "change_low", "change_high"]].isna().all(axis=None)
    converged = of(rows, surrogate="warm", measure="curvature").set_index("point")["converged"]
    found = results.reasons_of("warm")
    for point, share in converged.items():
        assert share == pytest.approx(100 * found[f"curvature_converged/{point}"].mean())
    assert rows[rows["measure"] != "curvature"]["converged"].isna().all()


def test_a_target_without_gradient_is_blank_and_left_out_of_the_mean_over_targets(results: Results) -> None:
    blank = one(results.reasons, surrogate="aligned", measure="cosine", point="clean", counterpart="squeezed")
    assert blank["n"] == 0 and pd.isna(blank["value"]) and pd.isna(blank["change_high"])
    mean = one(results.reasons, surrogate="aligned", measure="cosine", point="clean", counterpart="(mean)")
    both = [results.reasons_of("aligned", name)["cosine/clean"] for name in ("twin", "cousin")]
    assert mean["value"] == pytest.approx((both[0] + both[1]).mean() / 2, rel=1e-5)
    mean = one(results.reasons, surrogate="aligned", measure="divergence", point="clean", counterpart="(mean)")
    three = [results.reasons_of("aligned", name)["divergence/clean"] for name in ("twin", "cousin", "squeezed")]
    assert mean["value"] == pytest.approx(sum(own.mean() for own in three) / 3, rel=1e-5)


def test_a_correlation_is_scipys_over_all_surrogates(results: Results) -> None:
    def gain(surrogate: str, attack: str, target: str) -> float:
        found = one(results.transfer, surrogate=surrogate, attack=attack, target=target)["gain"]
        return 0.0 if surrogate == "source" else float(found)

    for (measure, point, other), attack, target in [
        (("gradient_l2", "clean", ""), "pgd", "(mean)"), (("cosine", "attacked", "(mean)"), "mi", "(mean)"),
        (("divergence", "random", "seer"), "(mean)", "(mean)"), (("cosine", "clean", "twin"), "(mean)", "twin"),
    ]:  # fmt: skip
        row = one(results.correlations, measure=measure, point=point, counterpart=other, attack=attack, target=target)
        values = of(results.reasons, measure=measure, point=point, counterpart=other).set_index("surrogate")["value"]
        attacks = ["pgd", "mi"] if attack == "(mean)" else [attack]
        gains = [np.mean([gain(name, own, target) for own in attacks]) for name in values.index]
        assert row["n"] == len(values) == (3 if other == "seer" else 4)
        if len(set(gains)) > 1:
            assert row["correlation"] == pytest.approx(stats.spearmanr(values, gains).statistic, abs=1e-3)
        else:
            assert pd.isna(row["correlation"])


def test_surrogates_with_the_same_weights_count_once_in_a_correlation(with_reasons: HandMade, tmp_path: Path) -> None:
    """`again` is the witness, under another name: with it there are 5 rows of reasons, and still 4 surrogates."""
    plain = load_results(with_reasons.file)
    variants = {"warm": {"align": {"temperature": 16}}, "again": {"model": "seer"}}
    experiment = reasoned(tmp_path, variants=variants)
    results = load_results(experiment.file)
    pd.testing.assert_frame_equal(results.correlations, plain.correlations)
    values = of(results.reasons, measure="loss", point="clean").set_index("surrogate")["value"]
    assert len(values) == 5 and values["again"] == values["witness"]
    (said,) = (line for line in remarks(experiment) if "rank correlations" in line)
    assert said.startswith("witness and again are the same network with the same seed, and count as one")
    assert not any("rank correlations" in line for line in remarks(with_reasons))


def remarks(experiment: HandMade) -> list[str]:
    return list(json.loads((experiment.report / "results.json").read_text())["remarks"])


def test_correlations_say_what_is_known_before_anything_is_crafted(results: Results) -> None:
    known = results.correlations.groupby("point")["before_crafting"].unique().map(list).to_dict()
    assert known == {"clean": ["yes"], "random": ["yes"], "attacked": ["no"]}
    assert not set(results.correlations["measure"]) & {"loss_along", "loss_across"}


def row_of(surrogate: str, measure: str, change: float | None) -> Any:
    figures = dict.fromkeys(("value_low", "value_high", "change_low", "change_high", "converged"))
    return {
        "surrogate": surrogate, "measure": measure, "point": "clean", "counterpart": "", "role": "", "n": 9,
        "seeds": 1, "value": 1.0, "change": change, **figures,
    }  # fmt: skip


def test_ranks_that_agree_have_a_correlation_of_1_and_tests_are_corrected_together() -> None:
    """With 5 surrogates a p-value is at least 2 / 5!; of two measures with one p-value, Holm doubles both."""
    gains = {"source": None, "a": 1.0, "b": 2.0, "c": 4.0, "d": -1.0}
    transfer: list[Any] = [
        {"surrogate": name, "attack": "x", "target": "(mean)", "rate": 50.0, "gain": gain}
        for name, gain in gains.items()
    ]
    changes = {"source": None, "a": 3.0, "b": 5.0, "c": 9.0, "d": -2.0}
    reasons = [row_of(name, measure, own) for measure in ("loss", "curvature") for name, own in changes.items()]
    rows = correlation_rows(reasons, transfer, ["source"], ["x"])
    assert [(row["measure"], row["attack"], row["n"], row["correlation"]) for row in rows] == [
        ("loss", "x", 5, 1.0), ("curvature", "x", 5, 1.0),
    ]  # fmt: skip
    assert [row["p_value"] for row in rows] == pytest.approx([2 / 120] * 2, rel=1e-5)
    assert [row["p_holm"] for row in rows] == pytest.approx([4 / 120] * 2, rel=1e-5)
    assert [row["correlation_low"] for row in rows] == pytest.approx([-0.71] * 2, abs=0.005)
    assert [row["correlation_high"] for row in rows] == [1.0, 1.0]


def test_soft_labels_stand_beside_the_gain_of_each_temperature(results: Results) -> None:
    rows, soft = results.soft_labels, results.reasons_of("@soft", "seer")
    assert rows[["surrogate", "witness", "temperature", "attack"]].to_numpy().tolist() == [
        [name, "seer", temperature, attack] for name, temperature in (("aligned", 4.0), ("warm", 16.0))
        for attack in ("pgd", "mi")
    ]  # fmt: skip
    for row in rows.to_dict("records"):
        temperature = f"{row['temperature']:g}"
        entropy, confidence = (soft[f"{name}/{temperature}"].to_numpy() for name in ("entropy", "confidence"))
        assert row["entropy"] == pytest.approx(entropy.mean(), rel=1e-5)
        assert [row["entropy_low"], row["entropy_high"]] == pytest.approx(percentiles(entropy), rel=1e-5)
        bins = np.ceil(confidence * 15)
        gaps = [abs((soft["hit/1"] - confidence)[bins == own].sum()) for own in set(bins)]
        assert row["ece"] == pytest.approx(100 * sum(gaps) / SAMPLE, abs=1e-3)
        assert row["ece_low"] <= row["ece"] <= row["ece_high"]
        agreement = results.reasons_of(row["surrogate"], "seer")["agreement/clean"]
        assert row["agreement"] == pytest.approx(100 * agreement.mean(), rel=1e-5)
        gain = one(results.transfer, surrogate=row["surrogate"], attack=row["attack"], target="(mean)")
        assert [row[name] for name in ("gain", "gain_low", "gain_high")] == [
            gain[name] for name in ("gain", "gain_low", "gain_high")
        ]


def test_over_several_seeds_a_row_is_the_mean_of_each_seeds(tmp_path: Path) -> None:
    experiment = reasoned(tmp_path, seed=None, seeds=[0, 1], variants={}, targets=["twin"])
    results = load_results(experiment.file)
    assert set(results.reasons["surrogate"]) == {"source", "aligned", "witness"}
    assert set(results.reasons["seeds"]) == {2}
    row = one(results.reasons, surrogate="aligned", measure="loss", point="attacked", counterpart="")
    sides = {
        name: np.mean([results.reasons_of(f"{name}~{seed}")["loss/attacked"] for seed in (0, 1)], axis=0)
        for name in ("aligned", "source")
    }
    assert row["value"] == pytest.approx(sides["aligned"].mean(), rel=1e-5)
    assert row["change"] == pytest.approx((sides["aligned"] - sides["source"]).mean(), rel=1e-4, abs=1e-9)
    assert [row["value_low"], row["value_high"]] == pytest.approx(percentiles(sides["aligned"]), rel=1e-5)
    by_seed = [
        results.reasons_of(f"aligned~{seed}")["loss/attacked"] - results.reasons_of(f"source~{seed}")["loss/attacked"]
        for seed in (0, 1)
    ]
    draws = np.concatenate(list(resampled_counts(SAMPLE, 0))) @ np.stack(by_seed, axis=1) / SAMPLE
    error = np.sqrt(np.var([own.mean() for own in by_seed], ddof=1) / 2 + draws.mean(axis=1).var(ddof=1))
    half = stats.t.ppf(0.975, 1) * error
    assert [row["change_both_low"], row["change_both_high"]] == pytest.approx(
        [row["change"] - half, row["change"] + half], rel=1e-3
    )
    assert results.soft_labels["seeds"].tolist() == [2, 2]
    assert set(results.correlations["n"]) <= {2, 3}


def test_the_command_verifies_the_tables_and_finds_one_that_is_damaged(
    with_reasons: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = reasoned(tmp_path, variants={}, targets=["twin"], controls=[])
    assert main(["verify", str(experiment.file)]) == 0
    (table,) = (experiment.output / "by-hand/reasons/aligned/twin").iterdir()
    table.write_bytes(table.read_bytes()[:-100])
    assert main(["verify", str(experiment.file)]) == 1
    assert "reasons/aligned/twin: cannot be read" in "".join(capsys.readouterr())


def test_curvature_is_a_magnitude(with_reasons: HandMade, results: Results) -> None:
    """A loss that bends down is as far from smooth as one that bends up."""
    folder = with_reasons.output / "by-hand/reasons/source/@self"
    values = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))])["curvature/clean"]
    row = one(results.reasons, surrogate="source", measure="curvature", point="clean", counterpart="")
    assert row["value"] == pytest.approx(values.abs().mean(), rel=1e-5)


def test_a_few_images_have_no_interval(tmp_path: Path) -> None:
    """Percentiles of two images exclude 0 whenever both have one sign."""
    experiment = reasoned(tmp_path, variants={}, targets=["twin"], controls=[], reasons={"sample": 5})
    results = load_results(experiment.file)
    own = of(results.reasons, surrogate="aligned")
    assert own["value"].notna().any() and set(own["n"]) <= set(range(6))
    for column in ("value_low", "value_high", "change_low", "change_high"):
        assert results.reasons[column].isna().all()
    assert (
        results.soft_labels["entropy"].notna().all()
        and results.soft_labels[["entropy_low", "ece_high"]].isna().all().all()
    )
