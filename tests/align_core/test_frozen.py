"""Parameters that a constructor froze stay as they are when the network is trained, and it is said."""

import sys
from pathlib import Path

import habits
import pytest
import torch
from habits import CLASSES, SHAPE

from align_core.align_config import AlignConfig, OptimizerConfig, Training
from align_core.alignment import Alignment
from align_core.model_config import ModelConfig, TrainConfig
from align_core.models import Classifier, build, copy_of, load
from align_core.trial import try_model
from align_core.weights import to_bytes

FROZEN = ["net.body.0.bias", "net.body.0.weight", "net.body.1.bias", "net.body.1.weight"]


@pytest.fixture(autouse=True)
def _factories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(habits.__file__).parent))
    monkeypatch.setitem(sys.modules, "habits", habits)


def built(factory: str) -> Classifier:
    torch.manual_seed(0)
    return build(ModelConfig(factory=f"habits:{factory}", train=TrainConfig()), CLASSES, 3)


def changed(source: Classifier, optimizer: str = "sgd") -> set[str]:
    """The parameters that three steps on labels change, weight decay among what they do."""
    before = {name: value.detach().clone() for name, value in source.named_parameters()}
    config = OptimizerConfig(name=optimizer, lr=0.1, weight_decay=0.1)
    alignment = Alignment(source, [], AlignConfig(label_weight=1.0, optimizer=config), total_steps=3, seed=0)
    for step in range(3):
        images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(step))
        alignment.step(images, torch.arange(4) % CLASSES)
    return {name for name, value in source.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_they_stay_as_they_are(optimizer: str) -> None:
    source = built("PartlyFrozen")
    assert sorted(source.frozen) == FROZEN
    assert changed(source, optimizer) == {"net.head.weight", "net.head.bias"}


def test_also_in_a_copy_of_what_was_loaded_from_a_file(tmp_path: Path) -> None:
    """Loading freezes everything, as predictions need no gradients of weights."""
    (tmp_path / "w.safetensors").write_bytes(to_bytes(built("PartlyFrozen").net.state_dict()))
    config = ModelConfig(factory="habits:PartlyFrozen", weights=str(tmp_path / "w.safetensors"))
    assert changed(copy_of(load(config, CLASSES, 3))) == {"net.head.weight", "net.head.bias"}


@pytest.mark.parametrize("factory", ["Plain", "wholly_frozen"])
def test_a_network_that_comes_ready_to_predict_is_trained_as_a_whole(factory: str) -> None:
    source = built(factory)
    assert source.frozen == frozenset()
    assert changed(source) == {*FROZEN, "net.head.weight", "net.head.bias"}


@pytest.mark.parametrize("trainings", [[], [Training("sgd", "update", 2), Training("adamw", "frozen", 2)]])
def test_it_is_said_of_what_is_trained(trainings: list[Training]) -> None:
    trial = try_model(built("PartlyFrozen"), "m", SHAPE, CLASSES, trainings=trainings)
    assert trial.frozen == (FROZEN if trainings else [])
    said = (
        "4 of its 6 parameters are frozen (body.0.bias, body.0.weight, body.1.bias, ...), and stay as they are when it"
    )
    assert [note.startswith(said) for note in trial.notes] == ([True] if trainings else [])
