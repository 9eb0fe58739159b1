"""robustness.csv, against counts by hand, statsmodels' intervals, and a bootstrap of numpy's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made import IMAGES, HandMade, hand_made
from statsmodels.stats.proportion import proportion_confint

from align_core.errors import InputError
from pipelines.experiment.config import load_experiment
from pipelines.report.page import computed_report, make_report
from pipelines.report.sentences import verdicts
from pipelines.stages.notes import notes_on

CORRUPTIONS = {"contrast": [2, 4], "jpeg": [1]}
OUTCOMES = {
    "clean/near": "000000000001",
    "clean/aligned": "000000000011",
    "outcomes/source/pgd/@self": "111111111100",
    "outcomes/aligned/pgd/@self": "111111000000",
    "outcomes/source/mi/@self": "111111111110",
    "outcomes/aligned/mi/@self": "111111111110",
    "corrupted/contrast-2/near": "000000111111",
    "corrupted/contrast-2/aligned": "000000001111",
    "corrupted/contrast-4/near": "111111111111",
    "corrupted/contrast-4/aligned": "000000000111",
    "corrupted/jpeg-1/near": "000000000011",
    "corrupted/jpeg-1/aligned": "000000000111",
}


def right(folder: str, outcomes: dict[str, str] = OUTCOMES) -> np.ndarray:
    return np.array([digit == "0" for digit in outcomes[folder]])


def table(report: Any, surrogate: str) -> pd.DataFrame:
    rows = [row for row in report.robustness if row["surrogate"] == surrogate]
    return pd.DataFrame(rows).set_index(["kind", "name", "severity"], drop=False)


@pytest.fixture
def finished(tmp_path: Path) -> HandMade:
    experiment = hand_made(tmp_path, corruptions=CORRUPTIONS)
    experiment.finish(OUTCOMES)
    return experiment


def test_accuracies_are_shares_of_all_images_and_changes_are_paired_with_the_source(finished: HandMade) -> None:
    report = computed_report(finished.blueprint())
    source, aligned = (
        {(row["kind"], row["name"], row["severity"]): row for row in report.robustness if row["surrogate"] == name}
        for name in ("source", "aligned")
    )
    assert list(source) == list(aligned) == [
        ("clean", "", None), ("attack", "pgd", None), ("attack", "mi", None), ("attack", "(all)", None),
        ("corruption", "contrast", 2), ("corruption", "contrast", 4), ("corruption", "jpeg", 1),
        ("corruption", "(mean)", None),
    ]  # fmt: skip
    folders = {
        ("clean", "", None): ("clean/near", "clean/aligned"),
        ("attack", "pgd", None): ("outcomes/source/pgd/@self", "outcomes/aligned/pgd/@self"),
        ("corruption", "contrast", 2): ("corrupted/contrast-2/near", "corrupted/contrast-2/aligned"),
    }
    for key, (before, after) in folders.items():
        hits, own = int(right(after).sum()), aligned[key]
        low, high = proportion_confint(hits, IMAGES, method="wilson")
        assert own["accuracy"] == pytest.approx(100 * hits / IMAGES, abs=1e-4)
        assert (own["accuracy_low"], own["accuracy_high"]) == pytest.approx((100 * low, 100 * high), abs=1e-3)
        assert own["change"] == pytest.approx(100 * (right(after).mean() - right(before).mean()), abs=1e-4)
        assert own["change_low"] < own["change"] < own["change_high"]
        assert source[key]["change"] is source[key]["change_low"] is own["change_both_low"] is None
    # Right when clean and under both attacks: image 11 of the source is wrong when clean.
    assert source["attack", "(all)", None]["accuracy"] == 0
    assert aligned["attack", "(all)", None]["accuracy"] == 0
    assert aligned["attack", "mi", None]["change"] == 0


def test_the_mean_over_corruptions_has_an_interval_of_resampled_images(finished: HandMade) -> None:
    report = computed_report(finished.blueprint())
    (own,) = [r for r in report.robustness if (r["surrogate"], r["name"]) == ("aligned", "(mean)")]
    names = ("contrast-2", "contrast-4", "jpeg-1")
    after, before = (
        np.mean([right(f"corrupted/{one}/{name}") for one in names], axis=0) for name in ("aligned", "near")
    )
    draws = np.random.default_rng(1).integers(0, IMAGES, (20_000, IMAGES))
    low, high = np.quantile(100 * (after - before)[draws].mean(axis=1), [0.025, 0.975])
    assert own["accuracy"] == pytest.approx(100 * after.mean(), abs=1e-4)
    assert own["change"] == pytest.approx(100 * (after - before).mean(), abs=1e-4)
    assert (own["change_low"], own["change_high"]) == pytest.approx((low, high), abs=2.5)


def test_over_several_seeds_the_interval_is_over_images_and_seeds(tmp_path: Path) -> None:
    seeds = [3, 5, 8]
    outcomes = {"outcomes/source~3/pgd/@self": "111111111110", "outcomes/source~5/pgd/@self": "111111111100"}
    outcomes |= {f"outcomes/aligned~{seed}/pgd/@self": "1" * (9 - n) + "0" * (3 + n) for n, seed in enumerate(seeds)}
    outcomes["outcomes/source~8/pgd/@self"] = "111111111110"
    report = computed_report(hand_made(tmp_path, seeds=seeds, corruptions={"jpeg": [1]}).finish(outcomes))
    (own,) = [r for r in report.robustness if (r["surrogate"], r["name"]) == ("aligned", "pgd")]
    changes = [
        100
        * (
            right(f"outcomes/aligned~{s}/pgd/@self", outcomes).mean()
            - right(f"outcomes/source~{s}/pgd/@self", outcomes).mean()
        )
        for s in seeds
    ]
    assert own["seeds"] == 3 and own["change"] == pytest.approx(np.mean(changes), abs=1e-4)
    least = 4.30 * np.std(changes, ddof=1) / np.sqrt(3)  # Student's t with two degrees of freedom, over seeds alone
    assert own["change_both_high"] - own["change"] > least
    assert own["change_low"] <= own["change"] <= own["change_high"]
    names = {(r["kind"], r["name"]) for r in report.robustness}
    assert ("corruption", "jpeg") in names and ("corruption", "(mean)") not in names


def test_a_corruption_of_colours_is_left_out_of_grey_images_and_all_stands_for_the_others(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path, corruptions={"all": [3], "jpeg": [1, 5]})
    blueprint = experiment.blueprint()
    found = [str(own) for own in blueprint.corruptions]
    assert "saturate-3" not in found and {"contrast-3", "jpeg-1", "jpeg-5"} < set(found) and "jpeg-3" not in found
    said = "corruptions: saturate is left out of `all`: it leaves grey images as they are"
    assert said in notes_on(blueprint) and said in blueprint.inspected.notes  # which the report begins with


@pytest.mark.parametrize(
    ("corruptions", "message"),
    [
        ({"jepg": [1]}, r"corruptions: .*no corruption 'jepg'; did you mean 'jpeg'"),
        ({"JPEG": [3]}, r"corruptions: .*no corruption 'JPEG'; did you mean 'jpeg'"),
        ({"ALL": [3]}, r"corruptions: .*no corruption 'ALL'; did you mean 'all'"),
        ({"zzz": [3]}, r"no corruption 'zzz'; there are: all, brightness, "),
        ({"jpeg": [6]}, "corruptions: jpeg: severities are 1, 2, 3, 4 and 5, not 6"),
        ({"jpeg": []}, r"jpeg: name at least one severity from 1 to 5, such as \[1, 3, 5\]"),
        ({"jpeg": [2, 2]}, "jpeg: severity 2 is named twice"),
        ({"all": [0]}, "all: severities are 1, 2, 3, 4 and 5, not 0"),
        ({"jpeg": 3}, "corruptions"),
        (["jpeg"], "corruptions"),
    ],
)
def test_corruptions_that_there_are_not(tmp_path: Path, corruptions: Any, message: str) -> None:
    experiment = hand_made(tmp_path, corruptions=corruptions)
    with pytest.raises(InputError, match=message):
        load_experiment(experiment.file)


def test_a_report_with_corruptions_is_read_again_as_it_was(finished: HandMade) -> None:
    blueprint = finished.blueprint()
    report, made = make_report(blueprint)
    assert made and make_report(finished.blueprint()) == (report, False)
    finished.write(corruptions={"jpeg": [1]})
    again, made = make_report(finished.blueprint())
    assert made and len(again.robustness) < len(report.robustness)


def test_the_mean_over_corruptions_counts_shares_of_the_source_also_where_the_surrogate_has_none(
    tmp_path: Path,
) -> None:
    """The surrogate is right of an image with every corruption or with none, and its source with some."""
    outcomes = dict(OUTCOMES)
    for name in ("contrast-2", "contrast-4", "jpeg-1"):
        outcomes[f"corrupted/{name}/aligned"] = "000000111111"
    experiment = hand_made(tmp_path, corruptions=CORRUPTIONS)
    report = computed_report(experiment.finish(outcomes))
    rows = {r["surrogate"]: r for r in report.robustness if r["name"] == "(mean)"}
    assert rows["aligned"]["accuracy"] == pytest.approx(50)
    assert rows["source"]["accuracy"] == pytest.approx(100 * 16 / 36, abs=1e-4)
    assert rows["aligned"]["change"] == pytest.approx(50 - 100 * 16 / 36, abs=1e-4)


def test_an_accuracy_that_never_varies_over_seeds_is_not_certain(tmp_path: Path) -> None:
    seeds = [3, 5]
    outcomes = {f"outcomes/{name}~{seed}/pgd/@self": "1" * IMAGES for name in ("source", "aligned") for seed in seeds}
    report = computed_report(hand_made(tmp_path, seeds=seeds).finish(outcomes))
    (own,) = [r for r in report.robustness if (r["surrogate"], r["name"]) == ("aligned", "pgd")]
    high = proportion_confint(0, IMAGES, method="wilson")[1]
    assert (own["accuracy"], own["accuracy_low"], own["accuracy_high"]) == pytest.approx((0, 0, 100 * high), abs=1e-3)
    assert own["change_both_low"] < 0 == own["change"] < own["change_both_high"]


def test_surrogates_have_the_intervals_of_clean_accuracy_that_stand_here(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path, seeds=[3, 5, 8])
    clean = {f"clean/aligned~{seed}": "0" * (12 - n) + "1" * n for n, seed in enumerate([3, 5, 8])}
    report = computed_report(experiment.finish({"clean/near": "000000000111", **clean}))
    (own,) = [r for r in report.robustness if (r["surrogate"], r["kind"]) == ("aligned", "clean")]
    rows = [r for r in report.surrogates if r["surrogate"] == "aligned"]
    for row in rows:
        assert (row["clean_accuracy_low"], row["clean_accuracy_high"]) == (own["accuracy_low"], own["accuracy_high"])
        for side in ("low", "high", "both_low", "both_high"):
            assert row[f"clean_change_{side}"] == own[f"change_{side}"]
    (line,) = [line for line in verdicts(report) if line.startswith("aligned under pgd")]
    both = f"clean accuracy +16.7 points ({own['change_both_low']:+.1f} to {own['change_both_high']:+.1f})"
    assert both in line
