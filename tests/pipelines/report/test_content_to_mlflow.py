"""What is logged to MLflow of an experiment, read back from a real database."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from empty_store import put_empty_store
from hand_made import CURVE, HandMade, hand_made
from logged import Logged, log

from pipelines.report.sentences import verdicts
from pipelines.report.tabled import Report
from pipelines.stages.times import CraftingTimes
from pipelines.storage.csv_table import from_csv

LEGAL = re.compile(r"[A-Za-z0-9_./ -]+")
OUTCOMES = {"outcomes/aligned/pgd/twin": "111100000000", "outcomes/source/pgd/cousin": "110000000000"}


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> HandMade:
    """An experiment with an empty MLflow database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path)
    put_empty_store(made.output)
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[HandMade, Report]:
    """An experiment with these outcomes that was logged once, and its report; no test changes them."""
    made = hand_made(tmp_path_factory.mktemp("logged"))
    put_empty_store(made.output)
    made.finish(OUTCOMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return made, log(made)


def test_settings_are_parameters_under_their_dotted_keys(experiment):
    experiment.write(seed=7, align={"temperature": 16, "optimizer": {"lr": 0.25}})
    experiment.finish()
    log(experiment)
    logged = Logged(experiment)
    aligned, source = (logged.named(name).data.params for name in ("aligned", "source"))
    expected = {
        "surrogate": "aligned", "source": "near", "witnesses": "seer", "seed": "7", "data.image_size": "8",
        "data.resize": "8", "data.interpolation": "bicubic",
        "align.temperature": "16.0", "align.optimizer.lr": "0.25", "align.loss": "kl",
        "attacks.pgd.steps": "4", "attacks.mi.momentum": "1.0",
    }  # fmt: skip
    assert expected.items() <= aligned.items()
    assert float(aligned["attacks.pgd.eps"]) == pytest.approx(4 / 255)
    assert not any(key.startswith("align.") for key in source)


def test_a_few_figures_are_metrics_under_the_same_names_for_every_surrogate(whole):
    experiment, report = whole
    logged = Logged(experiment)
    metrics = {run.info.run_name: run.data.metrics for run in logged.runs}
    figures = {"rate", "clean_accuracy", "robust_accuracy", "witness_agreement", "rate/pgd", "rate/mi"}
    gains = {"gain", "gain_low", "gain_high", "clean_change", "gain/pgd", "gain/mi"}  # which a source has not
    assert {name for name in metrics["source"] if "seconds" not in name} == figures
    for surrogate in ("aligned", "witness"):
        own = {name for name in metrics[surrogate] if "seconds" not in name and "curve/" not in name}
        assert own == figures | gains
    for row in report.means():
        own = metrics[row["surrogate"]]
        assert (own.get(f"gain/{row['attack']}"), own[f"rate/{row['attack']}"]) == (row["gain"], row["rate"])
        assert own["clean_accuracy"] == row["clean_accuracy"]
        if row["attack"] == "pgd":  # the experiment's first
            assert [own.get(name) for name in ("gain", "gain_low", "rate")] == [
                row["gain"], row["gain_low"], row["rate"]
            ]  # fmt: skip
    assert metrics["aligned"]["gain"] == pytest.approx(100 * (4 / 12 - 2 / 12 + 0) / 3, abs=1e-4)


def test_the_rest_is_in_tables_of_each_run(whole, tmp_path):
    experiment, report = whole
    logged = Logged(experiment)
    files = logged.artifacts(logged.named("aligned"), tmp_path / "aligned")
    rows = from_csv(files["tables/transfer.csv"])
    assert [(row["surrogate"], row["attack"], row["target"], row["rate"]) for row in rows] == [
        ("aligned", row["attack"], row["target"], str(row["rate"]))
        for row in report.transfer
        if row["surrogate"] == "aligned"
    ]
    assert {row["surrogate"] for row in from_csv(files["tables/contrasts.csv"])} == {"aligned"}
    assert "tables/seeds.csv" not in files


def test_the_run_of_the_experiment_says_what_was_asked_and_what_came_of_it(experiment):
    experiment.write(seed=7, align={"temperature": 16})
    blueprint = experiment.finish(OUTCOMES)
    report = log(experiment)
    parent = Logged(experiment).parent
    expected = {
        "source": "near", "witnesses": "seer", "targets": "twin, cousin, stranger", "controls": "witness", "seed": "7",
        "align.temperature": "16.0", "attacks.pgd.steps": "4", "data.image_size": "8", "test_images": "12",
    }  # fmt: skip
    assert expected.items() <= parent.data.params.items()
    mean = next(row for row in report.means() if (row["surrogate"], row["attack"]) == ("aligned", "pgd"))
    for name in ("gain", "rate", "clean_accuracy"):
        assert parent.data.metrics[name] == mean[name]
    text = parent.data.tags["mlflow.note.content"]
    assert "crafted on `near` aligned to `seer` (beside the controls `witness`) fool `twin`, `cousin` and" in text
    assert all(f"* {line}" in text for line in verdicts(report))
    assert blueprint.holes() == []
    aligned = Logged(experiment).named("aligned").data.tags["mlflow.note.content"]
    assert aligned.splitlines() == [f"* {line}" for line in verdicts(report) if line.startswith("aligned under ")]


def test_runs_have_their_image_sets_as_datasets(unlogged):
    blueprint = unlogged.blueprint()
    log(unlogged)
    log(unlogged, again=True)
    logged = Logged(unlogged)
    digests = {role: manifest.digest[:36] for role, manifest in blueprint.inspected.manifests.items()}
    for name, roles in (("aligned", ["test", "train"]), ("source", ["test"])):
        inputs = logged.client.get_run(logged.named(name).info.run_id).inputs.dataset_inputs
        found = {own.tags[0].value: own.dataset for own in inputs}
        assert sorted(found) == roles
        assert len(inputs) == len(roles)
        assert all(found[role].digest == digests[role] for role in roles)
        assert json.loads(found["test"].profile) == {"images": 12, "classes": 3}
        assert json.loads(found["test"].source) == {"uri": str(unlogged.folder / "images.npz")}


def test_durations_are_those_of_the_work(experiment):
    blueprint = experiment.finish(OUTCOMES)
    first, last = 1_700_000_000, 1_700_009_000
    for begin, end in ((first, first + 60), (last - 60, last)):
        lines = [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z a line\n" for at in (begin, end)]
        blueprint.store.write(f"logs/{begin}.log", "".join(lines).encode())
    file = blueprint.store.path(blueprint.adversarial(blueprint.by_name["source"], "mi").finished_file)
    os.utime(file, (first + 100, first + 100))
    times = CraftingTimes(blueprint.store)
    times.note(blueprint.adversarial(blueprint.by_name["source"], "mi").fingerprint, "cpu, 1 thread", 12, 40.0)
    times.save()
    for cell in blueprint.cells():
        if cell.surrogate == "aligned":
            os.utime(blueprint.store.path(cell.table.finished_file), (first + 600, first + 600))
    log(experiment)
    logged = Logged(experiment)
    infos = {run.info.run_name: run.info for run in [*logged.runs, logged.parent]}
    spans = {name: (info.start_time / 1000, info.end_time / 1000) for name, info in infos.items()}
    assert spans["by-hand"] == (first, last)
    assert spans["aligned"] == (CURVE[0]["timestamp"], first + 600)
    assert spans["source"] == (first + 60, last)  # its outcomes are newer than the last log, as those of a copy
    assert spans["witness"] == (last, last)


def test_ensembles_name_their_witnesses(experiment):
    experiment.write(controls=["witness", "ensemble", "aligned_ensemble"], witnesses=["seer", "other"])
    experiment.finish()
    log(experiment)
    params = {run.info.run_name: run.data.params for run in Logged(experiment).runs}
    assert params["ensemble"]["witnesses"] == "seer, other"
    assert params["ensemble"]["members"] == "near, seer, other"
    assert params["aligned_ensemble"]["members"] == "aligned, seer, other"
    assert (params["witness-other"]["witnesses"], params["aligned"]["witnesses"]) == ("other", "seer, other")
    assert params["source"]["witnesses"] == ""


def test_times_are_metrics_summed_over_attacks_and_kinds_of_workers(experiment):
    blueprint = experiment.finish(OUTCOMES)
    times = CraftingTimes(blueprint.store)
    for attack, worker, images, seconds in (
        ("mi", "cpu, 1 thread", 9, 4.0),
        ("mi", "a GPU", 3, 2.0),
        ("pgd", "a GPU", 12, 1.5),
    ):
        times.note(blueprint.adversarial(blueprint.by_name["aligned"], attack).fingerprint, worker, images, seconds)
    times.save()
    log(experiment)
    metrics = {run.info.run_name: run.data.metrics for run in Logged(experiment).runs}
    assert metrics["aligned"]["craft_seconds"] == 7.5
    assert metrics["aligned"]["fine_tune_seconds"] == 1.0  # which the card says
    assert not {"craft_seconds", "fine_tune_seconds"} & metrics["source"].keys()


def test_curves_are_logged_by_step_with_their_own_timestamps(whole):
    logged = Logged(whole[0])
    run = logged.named("aligned")
    for name in ("loss", "alignment_loss", "label_loss", "grad_norm", "lr"):
        points = logged.client.get_metric_history(run.info.run_id, f"curve/{name}")
        assert [(point.step, point.timestamp, point.value) for point in points] == [
            (row["step"], int(row["timestamp"] * 1000), row[name]) for row in CURVE
        ]
    assert not any(key.startswith("curve/") for key in logged.named("source").data.metrics)


def is_logged(file: Path) -> bool:
    """What the report keeps for itself is not logged, and nor are the tables for LaTeX and Markdown."""
    return file.is_file() and file.name not in ("report.json", "logged.json")


def test_artifacts_are_the_files_and_can_be_read_back(whole, tmp_path):
    experiment, blueprint = whole[0], whole[0].blueprint()
    logged = Logged(experiment)
    artifacts = logged.artifacts(logged.parent, tmp_path / "whole")
    files = {file.name: file.read_bytes() for file in experiment.report.iterdir() if is_logged(file)}
    assert artifacts == files | {"experiment.yaml": blueprint.store.read("experiment.yaml")}
    aligned = logged.artifacts(logged.named("aligned"), tmp_path / "aligned")
    tables = {f"tables/{table}.csv" for table in ("transfer", "contrasts", "surrogates", "robustness", "times")}
    assert {file for file in aligned if not file.startswith("model/")} == {"card.json", *tables}
    assert aligned["card.json"] == blueprint.store.read("models/aligned/card.json")


def test_names_use_only_characters_that_every_mlflow_backend_allows(experiment):
    """SQLite would accept more characters than other backends and MLflow's user interface do."""
    attack = {"method": "fgsm", "eps": "4/255"}
    experiment.write(attacks={"an.attack-1": attack}, variants={"a_variant-2.0": {"align": {"temperature": 2}}})
    experiment.finish()
    log(experiment)
    logged = Logged(experiment)
    for surrogate in logged.runs:
        for key in (*surrogate.data.metrics, *surrogate.data.params):
            assert LEGAL.fullmatch(key), key
    assert "attacks.an.attack-1.eps" in logged.named("a_variant-2.0").data.params


def test_the_experiment_is_one_of_training_runs_unless_its_user_says_otherwise(unlogged):
    log(unlogged)
    logged = Logged(unlogged)
    kind = "mlflow.experimentKind"
    assert logged.experiment.tags[kind] == "custom_model_development"
    logged.client.set_experiment_tag(logged.experiment.experiment_id, kind, "genai_development")
    log(unlogged, again=True)
    assert Logged(unlogged).experiment.tags[kind] == "genai_development"
    logged.client.delete_experiment_tag(logged.experiment.experiment_id, kind)  # as it was logged in earlier days
    log(unlogged, again=True)
    assert Logged(unlogged).experiment.tags[kind] == "custom_model_development"
