"""Sweeps over other surrogates than the aligned one, with real Ray Tune, on tiny networks for digits."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits_sweep import VALIDATION, Swept, write_sweep
from sweeping import space_file

from align_core.attacks import craft
from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.models import Ensemble, load
from pipelines.cli import main
from pipelines.experiment.config import load_experiment
from pipelines.run.command import run
from pipelines.run.request import Request
from pipelines.sweep.command import search_settings, tune_experiment
from pipelines.sweep.study import Options

LGV = {"refine": "lgv", "align": {"keep": {"per_epoch": 4}}}


@pytest.fixture(scope="module")
def swept(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep over how many networks LGV gathers, and the run of its choice beside the settings of its entry."""
    folder = tmp_path_factory.mktemp("rival")
    request = Request(write_sweep(folder, weights, variants={"lgv": LGV, "warm": {}}), quiet=True)
    space = space_file(folder, {"align.keep.per_epoch": {"choices": [1, 2]}})
    options = Options(space, searcher="grid", max_clean_drop=100, surrogate="lgv")
    return Swept(request, space, tune_experiment(request, options))


def test_its_trials_lie_under_the_names_of_space_and_surrogate(swept: Swept) -> None:
    assert swept.folder.name == "mine.lgv"
    assert swept.result.surrogate == swept.result.as_json()["surrogate"] == "lgv"
    trials = swept.trials()
    assert sorted(trial["align.keep.per_epoch"] for trial in trials) == ["1", "2"]
    assert {(trial["status"], trial["steps"], trial["images"]) for trial in trials} == {("done", "16", "97")}
    assert swept.result.best is not None
    best = max(trials, key=lambda trial: (float(trial["gain"]), float(trial["clean_accuracy"])))
    assert json.loads(best["align.keep.per_epoch"]) == swept.result.best["align.keep.per_epoch"]


def test_a_trial_measures_the_networks_that_a_run_makes(swept: Swept) -> None:
    """The networks of the test run, attacked one after the other on the validation images, by plain code."""
    experiment = load_experiment(swept.folder / "best.yaml")
    made = Path(swept.result.location).parents[2] / experiment.name / "models" / "lgv"
    files = sorted(made.glob("model*.safetensors"), key=lambda file: (len(file.name), file.name))
    assert swept.result.best is not None
    assert len(files) == 4 * swept.result.best["align.keep.per_epoch"]  # of four epochs

    def network(name: str, file: Path | None = None) -> Any:
        config = experiment.models[name]
        return load(config if file is None else dataclasses.replace(config, weights=str(file)), 10, 1)

    digits = open_image_set(ImageSetConfig(kind="digits"), 16)
    taken = slice(*VALIDATION["take"])
    ids, labels = (own[taken] for own in digits.listing())
    images_BCHW = torch.from_numpy(read_images(digits, ids))

    def wrong(model: Any, seen_BCHW: torch.Tensor) -> Any:
        with torch.no_grad():
            return model(seen_BCHW / 255).argmax(1).numpy() != labels

    counts = ~wrong(network("cnn_a"), images_BCHW) & ~wrong(network("cnn_d"), images_BCHW)
    lgv = Ensemble([network("cnn_a", file) for file in files], "cycle")
    crafted_BCHW = craft(lgv, images_BCHW, torch.from_numpy(labels), ids, experiment.attacks["pgd"], experiment.seed)
    rate = 100 * wrong(network("cnn_d"), crafted_BCHW)[counts].mean()
    best = str(swept.result.best["align.keep.per_epoch"])
    (trial,) = (trial for trial in swept.trials() if trial["align.keep.per_epoch"] == best)
    assert float(trial["cnn_d/rate"]) == pytest.approx(rate, abs=1e-4)
    assert float(trial["clean_accuracy"]) == pytest.approx(100 - 100 * np.mean(wrong(lgv, images_BCHW)), abs=1e-4)


def test_the_choice_is_measured_on_the_test_target_beside_its_entry(swept: Swept) -> None:
    best, own = load_experiment(swept.folder / "best.yaml"), load_experiment(swept.request.source)
    assert best.name == "digits-best-mine.lgv"
    assert best.variant_align("default") == own.variant_align("lgv")
    assert set(best.variants) == {"lgv", "default"}
    test = swept.result.test
    assert test is not None and test.report is not None
    chosen, default = (
        next(row for row in test.report.transfer if (row["surrogate"], row["target"]) == (name, "cnn_c"))
        for name in ("lgv", "default")
    )
    (contrast,) = (row for row in swept.result.contrast if row["target"] == "cnn_c")
    assert (contrast["surrogate"], contrast["baseline"]) == ("lgv", "default")
    assert contrast["gain"] == pytest.approx(chosen["rate"] - default["rate"], abs=1e-3)  # of four decimals


def test_again_it_computes_nothing_and_names_the_surrogate(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    before = swept.records()
    flags = ["--space", swept.space, "--surrogate", "lgv", "--searcher", "grid", "--max-clean-drop", "100", "--quiet"]
    assert main(["tune", str(swept.request.source), *flags]) == 0
    said = capsys.readouterr()
    assert swept.records() == before
    assert "sweep mine.lgv: every trial is there already: nothing to compute" in said.err
    assert "trials of lgv, on validation images" in said.out
    assert "lgv with the chosen settings " in said.out
    assert "lgv under pgd: " in said.out


@pytest.mark.slow
def test_what_it_is_aligned_to_is_made_first_and_every_trial_keeps_its_budget(
    ray_cluster: None, weights: Path, tmp_path: Path
) -> None:
    """A trial is the run of its settings, whose dearer steps are fewer."""
    variants = {
        "flat": {"refine": "sam"},
        "taught": {"witnesses": ["flat"], "align": {"inputs": {"name": "pgd", "steps": 2}}, "budget": "flat"},
    }
    request = Request(write_sweep(tmp_path, weights, variants=variants), quiet=True)
    space = space_file(tmp_path, {"align.inputs.steps": {"choices": [1, 5]}})
    options = Options(space, searcher="grid", max_clean_drop=100, surrogate="taught")
    result = search_settings(request, options)
    folder = tmp_path / "runs/digits"
    assert [own.name for own in (folder / "models").iterdir()] == ["flat"]
    # SAM takes 16 steps of two passes there and two back; here the source and its teacher see what PGD found.
    steps = {row["align.inputs.steps"]: row["steps"] for row in result.rows}
    assert steps == {"1": 16 * 4 // 5, "5": 16 * 4 // 13}
    data = request.experiment().data
    assert data.validation is not None
    validation = {key: value for key, value in dataclasses.asdict(data.validation).items() if value is not None}
    row = next(row for row in result.rows if row["align.inputs.steps"] == "5")
    own = [f"data.test={json.dumps(validation)}", "data.validation=null", "validation_targets=[]", "targets=[cnn_d]"]
    own += ["name=check", "variants.taught.align.inputs.steps=5"]
    report = run(dataclasses.replace(request, overrides=own)).report
    assert report is not None
    (mean,) = (r for r in report.transfer if (r["surrogate"], r["target"]) == ("taught", "(mean)"))
    figures = {name: mean[name] for name in ("gain", "gain_low", "gain_high")} | {"cnn_d/rate": mean["rate"]}
    assert {name: row[name] for name in figures} == pytest.approx(figures, abs=1e-4)
