"""Sweeps from the request to the choice, with real Ray Tune and Ray Train, on tiny networks for digits."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from digits_experiment import experiment
from digits_sweep import Swept, labels, sweep_settings, write_sweep
from sweeping import space_file

from align_core.model_config import ModelConfig
from align_core.models import load
from pipelines.experiment.config import load_experiment
from pipelines.failure import RunFailed
from pipelines.run.command import run
from pipelines.run.request import Request
from pipelines.sweep.command import search_settings, tune_experiment
from pipelines.sweep.study import Options


@pytest.fixture(scope="module")
def swept(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep of eight trials with Optuna and ASHA, and the run of its choice on the test targets."""
    request = Request(write_sweep(tmp_path_factory.mktemp("swept"), weights), quiet=True)
    options = Options("temperature_weight", samples=8, searcher="optuna", scheduler="asha", max_clean_drop=50)
    return Swept(request, "temperature_weight", tune_experiment(request, options))


class TestSweep:
    def test_every_trial_is_there_once_and_asha_stopped_some(self, swept: Swept) -> None:
        trials = swept.trials()
        assert len(trials) == len(swept.records()) == 8
        assert len({(t["align.temperature"], t["align.weight"], t["align.label_weight"]) for t in trials}) == 8
        assert labels(trials, "status").count("stopped") >= 1
        assert labels(trials, "status").count("done") >= 2
        done = [trial for trial in trials if trial["status"] == "done"]
        assert {trial["images"] for trial in done} == {"97"}
        assert {int(trial["steps"]) for trial in done} == {16}
        assert {int(trial["steps"]) for trial in trials if trial["status"] == "stopped"} <= {4, 8, 12}

    def test_the_chosen_has_the_largest_gain_of_those_that_came_to_their_end(self, swept: Swept) -> None:
        done = [trial for trial in swept.trials() if trial["status"] == "done"]
        best = max(done, key=lambda trial: (float(trial["gain"]), float(trial["clean_accuracy"])))  # of equal gains
        assert swept.result.best is not None
        assert json.loads(best["align.temperature"]) == swept.result.best["align.temperature"]
        assert best["pareto"] == "1"

    def test_best_yaml_is_a_whole_experiment_beside_the_default_settings(self, swept: Swept) -> None:
        best = load_experiment(swept.folder / "best.yaml")
        default = load_experiment(swept.request.source)
        assert swept.result.best is not None
        assert best.align.temperature == swept.result.best["align.temperature"]
        assert best.align.weight == swept.result.best["align.weight"]
        assert best.variant_align("default") == default.align
        assert best.targets == default.targets
        # The sweep has run this experiment, so running it again computes nothing.
        made = run(Request(swept.folder / "best.yaml", quiet=True)).made
        assert made == {"report": 0}

    def test_the_choice_is_measured_on_the_test_target_beside_the_default(self, swept: Swept) -> None:
        test = swept.result.test
        assert test is not None
        assert test.report is not None
        aligned, default = (
            next(r for r in test.report.transfer if r["surrogate"] == name and r["target"] == "cnn_c")
            for name in ("aligned", "default")
        )
        (contrast,) = (row for row in swept.result.contrast if row["target"] == "cnn_c")
        assert contrast["gain"] == pytest.approx(aligned["rate"] - default["rate"])
        assert contrast["gain_low"] <= contrast["gain"] <= contrast["gain_high"]
        assert contrast["n"] == aligned["n"]

    def test_figure_and_tables_lie_in_its_folder(self, swept: Swept) -> None:
        names = {file.name for file in swept.folder.iterdir()}
        assert names == {"trials", "trials.csv", "best.yaml", "sweep.png", "sweep.json", "inputs.json"}
        assert (swept.folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
        # Ray Tune's own files are deleted at the end of the sweep.
        assert not list((swept.folder.parents[1] / ".tune").iterdir())

    def test_again_it_computes_nothing_and_says_so(self, swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
        before = swept.records()
        options = Options("temperature_weight", samples=8, searcher="optuna", scheduler="asha", max_clean_drop=50)
        again = tune_experiment(swept.request, options)
        assert swept.records() == before
        assert again.best == swept.result.best
        assert again.test is not None
        assert again.test.made == {"report": 0}
        assert "sweep temperature_weight: every trial is there already: nothing to compute" in capsys.readouterr().err

    @pytest.mark.slow
    def test_a_smaller_drop_chooses_anew_from_what_is_there(self, swept: Swept, tmp_path: Path) -> None:
        """Another drop is another sweep for Optuna, which learns from it; the trials of the first are not run again."""
        before = {
            fingerprint: record["looks"][-1]["timestamp"]
            for fingerprint, record in swept.records().items()
            if record["status"] == "done"  # trials that ASHA stopped may run to their end without it
        }
        options = Options("temperature_weight", samples=8, searcher="random", max_clean_drop=0)
        result = search_settings(swept.request, options)
        after = {fingerprint: record["looks"][-1]["timestamp"] for fingerprint, record in swept.records().items()}
        assert {fingerprint: after[fingerprint] for fingerprint in before} == before
        if result.best is not None:
            chosen = [t for t in swept.trials() if t["status"] == "done" and float(t["clean_change"]) >= 0]
            assert max(float(t["gain"]) for t in chosen) == float(chosen[0]["gain"])


def run_of(request: Request, row: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of `witness run` with a trial's temperature, on the images and target of the trial."""
    data = request.experiment().data
    assert data.validation is not None
    validation = {k: v for k, v in dataclasses.asdict(data.validation).items() if v is not None}
    own = [f"data.test={json.dumps(validation)}", "data.validation=null", "validation_targets=[]", "targets=[cnn_d]"]
    own += ["name=check", f"align.temperature={row['align.temperature']}"]
    report = run(dataclasses.replace(request, overrides=[*request.overrides, *own])).report
    assert report is not None
    (mean,) = (r for r in report.transfer if (r["surrogate"], r["target"]) == ("aligned", "(mean)"))
    clean = next(r for r in report.surrogates if r["surrogate"] == "aligned")
    figures = {name: mean[name] for name in ("gain", "gain_low", "gain_high")}
    return figures | {"cnn_d/rate": mean["rate"]} | {n: clean[n] for n in ("clean_accuracy", "clean_change")}


def assert_as_a_run(request: Request, row: dict[str, Any]) -> None:
    expected = run_of(request, row)
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-4)  # tables have four decimals


@pytest.mark.slow
def test_a_trial_is_the_run_of_its_settings_and_touches_no_test_image(
    ray_cluster: None, weights: Path, tmp_path: Path
) -> None:
    request = Request(write_sweep(tmp_path, weights), quiet=True)
    space = space_file(tmp_path, {"align.temperature": {"choices": [2, 32]}})
    result = search_settings(request, Options(space, searcher="grid"))
    folder = tmp_path / "runs" / "digits"
    assert {"adversarial", "outcomes", "clean", "models"}.isdisjoint(path.name for path in folder.iterdir())
    for row in result.rows:
        assert_as_a_run(request, row)


@pytest.mark.slow
def test_a_trial_whose_loss_is_not_finite_is_recorded_and_the_others_go_on(
    ray_cluster: None, weights: Path, tmp_path: Path
) -> None:
    request = Request(write_sweep(tmp_path, weights), quiet=True)
    space = space_file(tmp_path, {"align.optimizer.lr": {"choices": [1e-3, 1e30]}})
    result = search_settings(request, Options(space, searcher="grid", max_clean_drop=100))
    rows = {row["align.optimizer.lr"]: row for row in result.rows}
    assert rows["0.001"]["status"] == "done"
    assert rows["1e+30"]["status"] == "failed"
    assert "its gradient is not finite at step" in rows["1e+30"]["reason"]
    assert rows["1e+30"]["gain"] is None
    assert result.best == {"align.optimizer.lr": 1e-3}
    # The trial would fail in the same way again, so it is not repeated.
    records = list((tmp_path / "runs/digits/sweeps/mine/trials").glob("*.json"))
    before = {file: file.stat().st_mtime_ns for file in records}
    (tmp_path / "runs/digits/sweeps/mine/sweep.json").unlink()
    search_settings(request, Options(space, searcher="grid", max_clean_drop=100))
    assert {file: file.stat().st_mtime_ns for file in records} == before


@pytest.mark.slow
def test_a_sweep_of_which_nothing_keeps_clean_accuracy_chooses_nothing(
    ray_cluster: None, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request(write_sweep(tmp_path, weights), quiet=True)
    space = space_file(tmp_path, {"align.optimizer.lr": {"choices": [0.5, 0.6]}})
    result = tune_experiment(request, Options(space, searcher="grid"))
    assert (result.best, result.test) == (None, None)
    assert "no trial keeps clean accuracy within 1 points (--max-clean-drop)" in capsys.readouterr().err
    folder = tmp_path / "runs/digits"
    assert not (folder / "sweeps/mine/best.yaml").exists()
    assert not (tmp_path / "runs" / "digits-best-mine").exists()


@pytest.mark.slow
def test_two_workers_a_trial_go_through_ray_train(ray_cluster: None, weights: Path, tmp_path: Path) -> None:
    """Their figures are those of `witness run` with the same settings and two workers."""
    request = Request(write_sweep(tmp_path, weights), overrides=["align.workers=2"], quiet=True)
    space = space_file(tmp_path, {"align.temperature": {"choices": [2, 32]}})
    result = search_settings(request, Options(space, searcher="grid", max_clean_drop=100))
    assert [row["status"] for row in result.rows] == ["done", "done"]
    assert_as_a_run(request, result.rows[0])


@pytest.mark.slow
def test_asha_stops_trials_of_two_workers_too(ray_cluster: None, weights: Path, tmp_path: Path) -> None:
    """The workers end by themselves, so that the next trial gets their CPUs: the cluster has room for one trial."""
    long = ["align.workers=2", "align.epochs=60"]
    request = Request(write_sweep(tmp_path, weights), overrides=long, quiet=True)
    space = space_file(tmp_path, {"align.optimizer.lr": {"choices": [1e-3, 0.5]}})
    swept = Swept(request, space, search_settings(request, Options(space, searcher="grid", scheduler="asha")))
    trials = {trial["align.optimizer.lr"]: trial for trial in swept.trials()}
    assert trials["0.001"]["status"] == "done"
    assert trials["0.001"]["steps"] == "240"
    assert trials["0.5"]["status"] == "stopped"
    assert int(trials["0.5"]["steps"]) < 240
    assert not list((tmp_path / "runs/digits/.train").iterdir())


@pytest.mark.slow
def test_the_chosen_witnesses_stand_in_best_yaml(ray_cluster: None, weights: Path, tmp_path: Path) -> None:
    request = Request(write_sweep(tmp_path, weights, witnesses=["wide", "cnn_b"]), quiet=True)
    result = search_settings(request, Options("witness", searcher="grid", max_clean_drop=100))
    assert sorted(row["witnesses"] for row in result.rows) == ["cnn_b", "wide", "wide+cnn_b"]
    assert result.best is not None
    best = yaml.safe_load((tmp_path / "runs/digits/sweeps/witness/best.yaml").read_text())
    assert best["witnesses"] == result.best["witnesses"]
    assert best["variants"]["default"]["witnesses"] == ["wide", "cnn_b"]


def test_a_source_that_gets_nothing_right_ends_the_sweep_before_any_trial(
    ray_cluster: None, weights: Path, tmp_path: Path
) -> None:
    """The label of the only validation image is wrong, so the image counts for no target."""
    request = Request(write_sweep(tmp_path, weights, data=with_one_wrong_label(tmp_path, weights)), quiet=True)
    with pytest.raises(RunFailed, match="no image is classified correctly by both the source and a validation target"):
        search_settings(request, Options("temperature", samples=2))
    assert not (tmp_path / "runs/digits/sweeps/temperature/trials").exists()


def with_one_wrong_label(folder: Path, weights: Path) -> dict[str, Any]:
    data = sweep_settings(weights)["data"]
    images = np.zeros((1, 16, 16), np.uint8)
    source = load(ModelConfig(**experiment(weights)["models"]["cnn_a"]), 10, 1)
    seen = int(source(torch.zeros(1, 1, 16, 16)).argmax())
    np.savez(folder / "one.npz", images=images, labels=np.array([(seen + 1) % 10]))
    return dict(data) | {"validation": {"kind": "npz", "path": str(folder / "one.npz")}}


def chosen_of(request: Request, space: str) -> tuple[list[str], Any]:
    """Runs a sweep and returns the temperatures in the order of its rows, and the choice."""
    result = search_settings(request, Options(space, searcher="grid", max_clean_drop=100))
    return [row["align.temperature"] for row in result.rows], result.best


@pytest.fixture(scope="module")
def whole(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The request, the space, the result of `chosen_of`, and the folder of a sweep that is over."""
    folder = tmp_path_factory.mktemp("whole")
    request = Request(write_sweep(folder, weights), quiet=True)
    space = space_file(folder, {"align.temperature": {"choices": [2, 32]}})
    return request, space, chosen_of(request, space), folder / "runs/digits/sweeps/mine"


@pytest.mark.slow
def test_trials_of_other_images_are_set_aside(whole: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request, space, (temperatures, _), folder = whole
    with_output = dataclasses.replace(request, output=str(request.source.parent / "other"))
    shutil.copytree(folder.parents[1], request.source.parent / "other" / "digits")
    sweep = request.source.parent / "other/digits/sweeps/mine"
    old = {file.stem for file in (sweep / "trials").glob("*.json")}
    assert len(old) == len(temperatures) == 2
    other = dataclasses.replace(with_output, overrides=["data.validation.limit=40"])
    result = Swept(other, space, search_settings(other, Options(space, searcher="grid", max_clean_drop=100)))
    assert "sweeps/mine/trials: made with other settings; moved to .stale/" in capsys.readouterr().err
    assert old.isdisjoint(result.records())
    assert {trial["images"] for trial in result.trials()} == {"40"}
    assert {file.stem for file in (sweep.parents[1] / ".stale").rglob("trials/*.json")} == old


def slow(content: str | None) -> Any:
    return pytest.param(content, marks=pytest.mark.slow)


@pytest.mark.slow
class TestDamage:
    """A damaged file of a finished sweep is computed again, and the choice stays the same."""

    @pytest.mark.parametrize("content", ['{"settings": {', *(slow(content) for content in (None, "{}"))])
    def test_a_record_that_is_missing_or_damaged(self, whole: Any, content: str | None) -> None:
        request, space, before, folder = whole
        record = min((folder / "trials").glob("*.json"))
        record.unlink() if content is None else record.write_text(content)
        (folder / "trials" / "notes.txt").write_bytes(b"\xff")
        assert chosen_of(request, space) == before

    @pytest.mark.parametrize("content", ["{}", *(slow(content) for content in ("", "[]"))])
    def test_the_note_of_the_end_that_is_damaged(self, whole: Any, content: str) -> None:
        request, space, before, folder = whole
        (folder / "sweep.json").write_text(content)
        assert chosen_of(request, space) == before
