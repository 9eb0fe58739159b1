"""An aligned model is registered in MLflow, and another experiment takes it from there unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
from empty_store import put_empty_store
from hand_made import HandMade, hand_made
from mlflow import MlflowClient

from align_core.errors import InputError
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import network_loader
from pipelines.tracking.runs import tracking_uri


def log(experiment: HandMade) -> Blueprint:
    blueprint = experiment.finish()
    assert run(Request(experiment.file, quiet=True), ["report"]).logged
    return blueprint


def versions(experiment: HandMade) -> list[Any]:
    return list(MlflowClient(tracking_uri(experiment.blueprint().experiment)).search_model_versions("name = 'linear'"))


@pytest.fixture
def first(tmp_path: Path) -> HandMade:
    """An experiment that registers what it aligns."""
    experiment = hand_made(tmp_path, register="linear")
    put_empty_store(experiment.output)
    return experiment


def second(first: HandMade, name: str = "again", **model: Any) -> Request:
    """An experiment on the same tracking store that takes the registered model as a variant."""
    models = first.content()["models"] | {"earlier": {"mlflow": "models:/linear/1"} | model}
    tracking = f"sqlite:///{first.output}/mlflow.db"
    first.write(name=name, models=models, tracking=tracking, variants={"old": {"model": "earlier"}})
    return Request(first.file, quiet=True)


def test_an_aligned_model_is_registered_once_with_its_card(first: HandMade, tmp_path: Path) -> None:
    blueprint = log(first)
    (version,) = versions(first)
    assert (version.version, version.tags["witness.weights"]) == (1, blueprint.networks["aligned"].digest)
    client = MlflowClient(tracking_uri(blueprint.experiment))
    files = {Path(file.path).name for file in client.list_artifacts(version.run_id, "model")}
    assert {"model.safetensors", "card.json", "MLmodel"} <= files
    assert run(Request(first.file, quiet=True), ["report"], log=True).logged
    assert len(versions(first)) == 1
    first.write(register="linear", align={"temperature": 2})
    log(first)
    assert [version.version for version in versions(first)] == [2, 1]


def test_without_the_key_register_no_model_is_registered(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    put_empty_store(experiment.output)
    log(experiment)
    assert versions(experiment) == []
    experiment.write(register="linear")  # the key is added after the first run
    assert run(Request(experiment.file, quiet=True), ["report"]).logged
    assert len(versions(experiment)) == 1


def test_a_registered_model_is_taken_as_it_is(first: HandMade) -> None:
    aligned = log(first).networks["aligned"]
    blueprint = open_blueprint(second(first))
    assert not (first.output / "again").exists()
    assert blueprint.networks["earlier"].identity == aligned.identity
    old = blueprint.by_name["old"]
    assert (old.members, old.align, old.baseline) == (("earlier",), None, "source")
    # Its adversarial images are those of the surrogate that was aligned here with the same settings.
    made = first.finish()
    tables = [made.adversarial(made.by_name[name], "pgd") for name in ("old", "aligned")]
    assert tables[0].fingerprint == tables[1].fingerprint
    report = run(Request(first.file, quiet=True), ["report"]).report
    assert report is not None
    assert ("old", "witness") in {(row["surrogate"], row["baseline"]) for row in report.contrasts}


def test_a_model_is_fetched_once_and_workers_find_it_in_the_store(first: HandMade) -> None:
    log(first)
    request = second(first)
    blueprint = open_blueprint(request)
    blueprint.inspected.save(blueprint.store)
    for artifact in (first.output / "mlartifacts").rglob("model.safetensors"):
        artifact.unlink()
    again = open_blueprint(request)
    assert again.networks["earlier"] == blueprint.networks["earlier"]
    network_loader(again).load("earlier", "cpu")


def test_preprocessing_and_family_of_the_experiment_file_override_the_card(first: HandMade) -> None:
    log(first)
    blueprint = open_blueprint(second(first, mean=[0.5], std=[0.25], family="mine"))
    config = blueprint.networks["earlier"].config
    assert (config.mean, config.std, config.family) == ((0.5,), (0.25,), "mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"mlflow": "models:/linear/2"},
            "models.earlier: version 2 of the model linear cannot be fetched from MLflow at sqlite:///",
        ),
        (
            {"mlflow": "models:/nobody/1"},
            "models.earlier: version 1 of the model nobody cannot be fetched from MLflow at sqlite:///",
        ),
        ({"mlflow": "models:/linear@latest"}, "with a number as version, not 'models:/linear@latest'"),
        ({"mlflow": "linear"}, "mlflow must be models:/NAME/VERSION"),
        ({"weights": "near.safetensors"}, "an aligned model has its own weights"),
    ],
)
def test_a_model_that_does_not_exist_or_is_misspelt_is_reported(
    first: HandMade, change: dict[str, Any], said: str
) -> None:
    log(first)
    with pytest.raises(InputError, match=said):
        open_blueprint(second(first, **change))
    assert not (first.output / "again").exists()


def test_a_registered_model_that_witness_did_not_write_is_refused(first: HandMade) -> None:
    log(first)
    for card in (first.output / "mlartifacts").rglob("model/card.json"):
        card.write_text(json.dumps({"model": 1}))
    with pytest.raises(InputError, match=r"models.earlier: models:/linear/1: not the card of an aligned model"):
        open_blueprint(second(first))


def test_a_model_that_is_taken_as_a_variant_cannot_be_a_target(first: HandMade) -> None:
    log(first)
    request = second(first)
    first.write(**{**first.content(), "variants": {"old": {"model": "twin"}}})
    with pytest.raises(InputError, match=r"targets: twin is named in variants.old.model too"):
        open_blueprint(request)
    first.write(variants={"old": {"model": "other", "align": {"epochs": 2}}})
    with pytest.raises(InputError, match=r"variants.old.model: nothing is aligned here, so leave out"):
        open_blueprint(request)
