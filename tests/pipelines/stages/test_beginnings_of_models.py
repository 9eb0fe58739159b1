"""`weights` together with `train`: the model starts from the weights, which are part of what determines it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hand_made import CLASSES, HandMade, hand_made
from one_worker import WORKER
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file

from align_core.errors import InputError
from pipelines.compute.fine_tune import fine_tune_alone
from pipelines.failure import InputChangedError
from pipelines.stages.align import commit
from pipelines.stages.makings import Making
from pipelines.stages.payload import fine_tune_of

BODY = ("1.weight", "1.bias")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return hand_made(tmp_path)


def with_training(experiment: HandMade, **train: Any) -> HandMade:
    models = experiment.content()["models"]
    settings = {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0} | train
    experiment.write(models=models | {"near": models["near"] | {"train": settings}})
    return experiment


def training_of(experiment: HandMade) -> Making:
    (making,) = experiment.blueprint().trainings()
    return making


def with_other_classes(experiment: HandMade, classes: int = 5) -> dict[str, torch.Tensor]:
    path = experiment.folder / "near.safetensors"
    state = load_file(path)
    state |= {"2.weight": torch.randn(classes, 2), "2.bias": torch.randn(classes)}
    save_file(state, path)
    return state


def test_it_is_trained_from_the_weights(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """At a learning rate of almost nothing the body stays, and the classifier is one for the experiment's classes."""
    state = with_other_classes(experiment)
    blueprint = with_training(experiment).blueprint()
    note = "models.near: its weights are for 5 classes, and its classifier is new, for 3"
    assert note in blueprint.inspected.notes
    (making,) = blueprint.trainings()
    assert making.folder == "trained/near" and not blueprint.is_made("near")
    (kept,), _, effect, *_ = fine_tune_alone(fine_tune_of(blueprint, making, WORKER), "cpu", "elsewhere")
    found = load_bytes(kept)
    assert effect is None
    for name in BODY:
        torch.testing.assert_close(found[name], state[name], rtol=0, atol=1e-6)
    assert found["2.weight"].shape == (CLASSES, 2)
    commit(blueprint.store, making, [kept], [{"step": 0, "loss": 1.0}], 1.0, blueprint.inspected.shape)
    blueprint.refresh()
    assert blueprint.is_made("near") and [own.name for own in blueprint.alignments()] == ["aligned"]
    experiment.write(
        name="later",
        models=experiment.content()["models"] | {"near": {"aligned": str(experiment.output / "by-hand/trained/near")}},
    )
    later = experiment.blueprint()
    assert later.networks["near"].digest == blueprint.networks["near"].digest


def test_it_learns(experiment: HandMade) -> None:
    blueprint = with_training(experiment, lr=0.01, epochs=3).blueprint()
    (making,) = blueprint.trainings()
    (kept,), curve, *_ = fine_tune_alone(fine_tune_of(blueprint, making, WORKER), "cpu", "elsewhere")
    assert curve[-1]["label_loss"] < curve[0]["label_loss"]
    assert not torch.equal(load_bytes(kept)["1.weight"], load_file(experiment.folder / "near.safetensors")["1.weight"])


def test_the_weights_are_part_of_the_fingerprint_and_their_path_is_not(experiment: HandMade) -> None:
    with_training(experiment)
    first = training_of(experiment)
    (experiment.folder / "near.safetensors").rename(experiment.folder / "elsewhere.safetensors")
    models = experiment.content()["models"]
    near = models["near"] | {"train": {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0}}
    experiment.write(models=models | {"near": near | {"weights": "elsewhere.safetensors"}})
    moved = training_of(experiment)
    assert moved.fingerprint == first.fingerprint and moved.inputs == first.inputs
    state = load_file(experiment.folder / "elsewhere.safetensors")
    save_file(state | {"1.bias": state["1.bias"] + 1}, experiment.folder / "elsewhere.safetensors")
    changed = training_of(experiment)
    assert {key for key in first.inputs if changed.inputs[key] != first.inputs[key]} == {"begins"}
    del near["weights"]
    experiment.write(models=models | {"near": near})
    assert "begins" not in training_of(experiment).inputs


@pytest.mark.parametrize(("taken", "is_meant"), [({"in_chans": 3}, True), ({"in_chans": 1}, False)])
def test_other_channels_are_named_where_the_weights_fit_with_them(
    experiment: HandMade, taken: dict[str, int], is_meant: bool
) -> None:
    """A network with random weights takes images of any channels, so that this alone shows nothing."""
    state = timm.create_model("test_resnet", num_classes=7, **taken).state_dict()
    state |= {} if is_meant else {"other.weight": torch.zeros(1)}
    save_file(state, experiment.folder / "w.safetensors")
    near = {"timm": "test_resnet", "weights": "w.safetensors", "train": {"epochs": 1}}
    experiment.write(models=experiment.content()["models"] | {"near": near})
    with pytest.raises(InputError, match=r"models\.near: .* do not fit the model") as refused:
        experiment.blueprint()
    assert ("is data.channels: 3 meant?" in str(refused.value)) == is_meant


def test_weights_that_were_exchanged_since_are_refused(experiment: HandMade) -> None:
    blueprint = with_training(experiment).blueprint()
    (making,) = blueprint.trainings()
    job = fine_tune_of(blueprint, making, WORKER)
    with_other_classes(experiment, CLASSES)
    with pytest.raises(InputChangedError, match=r"models\.near: the weights that it starts from are not as they were"):
        fine_tune_alone(job, "cpu", "elsewhere")


@pytest.mark.parametrize(
    ("name", "start", "other", "is_said"),
    [
        ("twin", "near", "near", True),  # a target from the source's weights
        ("seer", "near", "near", True),  # a witness from the source's weights
        ("near", "seer", "seer", True),  # a source from the witness's weights
        ("other", "twin", "twin", True),  # a validation target from a target's weights
        ("stranger", "twin", "twin", False),  # two targets
        ("twin", "other", "near", False),
    ],
)
def test_models_that_come_from_the_same_weights_are_named(
    experiment: HandMade, name: str, start: str, other: str, is_said: bool
) -> None:
    models = experiment.content()["models"]
    trained = {**models[start], "train": {"epochs": 1}, "family": models[name].get("family", name)}
    experiment.write(models=models | {name: trained}, validation_targets=[] if name == "twin" else ["other"])
    said = [note for note in experiment.blueprint().inspected.notes if "come from the same weights" in note]
    named = ", ".join(own for own in models if own in (name, other))
    assert [note.partition(":")[0] for note in said] == ([named] if is_said else [])


def test_two_trainings_from_the_same_weights_are_named(experiment: HandMade) -> None:
    models = experiment.content()["models"]
    trained = {**models["near"], "train": {"epochs": 1}}
    experiment.write(models=models | {"near": trained, "twin": trained, "cousin": trained})
    (said,) = (note for note in experiment.blueprint().inspected.notes if "come from the same weights" in note)
    assert said.startswith("near, twin, cousin: these models")


def test_a_target_is_not_what_a_model_of_the_attacker_starts_from(experiment: HandMade) -> None:
    with_training(experiment)
    state = load_file(experiment.folder / "near.safetensors")
    save_file(state, experiment.folder / "twin.safetensors")
    with pytest.raises(InputError, match="targets: the training of near starts from the weights of twin"):
        experiment.blueprint()
