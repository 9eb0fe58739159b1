"""Factories that return a network with its weights (`weights: none`): in every role, hashed, and refused if random."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from crafted_by_hand import finish
from hand_made import HandMade, hand_made
from safetensors.torch import load_file

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.models import load
from align_core.weights import hash_state, hash_weights
from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment
from pipelines.stages.payload import network_loader

ZOO = """
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


def net(name, width):
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))
    made.load_state_dict(load_file(Path(__file__).with_name(f"{name}.safetensors")))
    return made


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.net = net("stranger", 6)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, images):
        return self.scale * self.net(images)


def scaled(scale):
    return Scaled(scale)


def random(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))


class Counting(Scaled):
    def forward(self, images):
        self.scale = self.scale + 1
        return super().forward(images)


def counting(scale):
    return Counting(scale)
"""
WIDTHS = {"near": 2, "seer": 5, "twin": 2}


def own(name: str) -> dict[str, Any]:
    return {"factory": f"zoo_{name}:net", "args": {"name": name, "width": WIDTHS[name]}, "weights": "none"}


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    """Source, witness and one target come with their weights, each from a module of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.startswith("zoo_")]:
        del sys.modules[name]  # those of another test's folder
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    models = HandMade(tmp_path).content()["models"] | {name: own(name) for name in WIDTHS}
    made = hand_made(tmp_path, models=models, targets=["twin", "stranger"])
    for name in (*WIDTHS, "more"):
        (tmp_path / f"zoo_{name}.py").write_text(ZOO)
    return made


def test_every_role_and_what_is_recorded(experiment: HandMade) -> None:
    finish(experiment.blueprint())
    blueprint = experiment.blueprint()
    for name in WIDTHS:
        digest = hash_weights(load_file(experiment.folder / f"{name}.safetensors"))
        assert blueprint.networks[name].digest == blueprint.networks[name].identity["weights"] == digest
    (aligned,) = (making for making in blueprint.alignments() if making.name == "aligned")
    card = json.loads((experiment.output / "by-hand" / "models" / "aligned" / "card.json").read_text())
    assert card["inputs"]["source"]["weights"] == blueprint.networks["near"].digest
    assert card["inputs"]["witnesses"][0]["weights"] == blueprint.networks["seer"].digest
    stored = load_file(experiment.output / "by-hand" / "models" / "aligned" / "model.safetensors")
    loaded = network_loader(blueprint).load("aligned", "cpu").net.state_dict()
    as_others_load_it = load(ModelConfig(aligned=str(experiment.output / "by-hand" / aligned.folder)), 3, 1).net
    for state in (loaded, as_others_load_it.state_dict()):
        assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert not torch.equal(stored["1.weight"], load_file(experiment.folder / "near.safetensors")["1.weight"])
    assert verify_experiment(Request(experiment.file, quiet=True)).findings == []


def test_the_same_weights_from_a_file_and_from_a_factory_are_the_same_model(
    experiment: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    again = {"factory": "zoo_more:net", "args": {"name": "near", "width": 2}, "weights": "none"}
    experiment.write(models=experiment.content()["models"] | {"again": again}, targets=["again"])
    assert main(["run", str(experiment.file)]) == 2
    assert "targets: again has the same weights as near" in capsys.readouterr().err


def test_random_weights_are_refused(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = {"factory": "zoo_more:random", "args": {"width": 2}, "weights": "none"}
    experiment.write(models=experiment.content()["models"] | {"drawn": drawn}, targets=["drawn"])
    assert main(["run", str(experiment.file)]) == 2
    assert (
        "models.drawn: the factory zoo_more:random returns other weights at every call, so that `weights: none`"
        in capsys.readouterr().err
    )
    assert not experiment.output.exists()


def test_weights_that_predicting_changes_are_refused(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    counting = {"factory": "zoo_more:counting", "args": {"scale": 1.0}, "weights": "none"}
    experiment.write(models=experiment.content()["models"] | {"counts": counting}, targets=["counts"])
    assert main(["run", str(experiment.file)]) == 2
    said = capsys.readouterr().err
    assert "models.counts: predicting or differentiating changes the parameters or buffers of the network" in said
    assert not experiment.output.exists()


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"timm": "test_vit", "weights": "none"}, "weights: none is for a factory that returns a network with its"),
        ({"factory": "zoo_more:net"}, "either `weights` or `train` is needed, or both (weights: none, if the"),
    ],
)
def test_where_it_does_not_apply(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], model: Mapping[str, Any], complaint: str
) -> None:
    experiment.write(models=experiment.content()["models"] | {"m": dict(model)})
    assert main(["run", str(experiment.file)]) == 2
    assert f"models.m: {complaint}" in capsys.readouterr().err


def test_buffers_that_no_file_holds_are_part_of_the_hash(experiment: HandMade) -> None:
    def digest(scale: float) -> str | None:
        model = {"factory": "zoo_more:scaled", "args": {"scale": scale}, "weights": "none"}
        experiment.write(models=experiment.content()["models"] | {"scaled": model}, targets=["scaled"])
        return experiment.blueprint().networks["scaled"].digest

    assert digest(1.0) == digest(1.0) != digest(2.0)


def test_weights_that_changed_since_the_inspection_are_not_used(experiment: HandMade) -> None:
    """The file that a factory reads is known to nobody else, so workers look at what it gives them."""
    blueprint = experiment.blueprint()
    blueprint.inspected.save(blueprint.store)
    twin = experiment.folder / "twin.safetensors"
    twin.write_bytes((experiment.folder / "near.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"models\.twin: the factory zoo_twin:net returns other weights here"):
        network_loader(blueprint).load("twin", "cpu")
    assert experiment.blueprint().networks["twin"].digest == blueprint.networks["twin"].digest  # as inspected


def test_the_hash_is_that_of_the_weights_alone_where_there_is_nothing_else() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert hash_state(net) == hash_weights(net.state_dict())
    net.register_buffer("more", torch.ones(1), persistent=False)
    assert hash_state(net) != hash_weights(net.state_dict())
