"""A training that starts from weights: the body is theirs, and the classifier is new where the classes are others."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from align_core.beginnings import begin
from align_core.errors import InputError
from align_core.model_config import ModelConfig, TrainConfig, model_config_as_dict, model_config_from
from align_core.models import build, load
from align_core.published import as_built
from align_core.weights import hash_weights

FACTORY = """
from torch import nn
def plain(classes=3, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))
def single(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
def behind_relu(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, classes), nn.ReLU())
"""


@pytest.fixture(autouse=True)
def _factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks_to_begin_with.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)


def saved(net: nn.Module, folder: Path) -> tuple[str, dict[str, Tensor]]:
    state = {name: value.clone() for name, value in net.state_dict().items()}
    save_file(state, folder / "w.safetensors")
    return str(folder / "w.safetensors"), state


def trained(**settings: Any) -> ModelConfig:
    return ModelConfig(train=TrainConfig(), **settings)


def begun(config: ModelConfig, classes: int, seed: int, channels: int = 3, size: int = 32) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return begin(config, classes, channels, size)[0].net.state_dict()


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if one[name].shape != other[name].shape or not torch.equal(one[name], other[name])}


def own_factory(name: str, **args: int) -> dict[str, Any]:
    return {"factory": f"networks_to_begin_with:{name}", "args": args}


@pytest.mark.parametrize(
    ("architecture", "net", "heads", "shape"),
    [
        ({"timm": "test_resnet"}, lambda: timm.create_model("test_resnet", num_classes=7), {"fc"}, (3, 32)),
        ({"timm": "test_vit2"}, lambda: timm.create_model("test_vit2", num_classes=7), {"head"}, (3, 32)),
        (
            {"timm": "deit_tiny_distilled_patch16_224", "args": {"img_size": 32, "depth": 1}},
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7, img_size=32, depth=1),
            {"head", "head_dist"},
            (3, 32),
        ),
        (
            {"torchvision": "mobilenet_v3_small"},
            lambda: torchvision.models.mobilenet_v3_small(num_classes=7),
            {"classifier.3"},
            (3, 32),
        ),
        (
            own_factory("plain"),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 7)),
            {"3"},
            (1, 8),
        ),
    ],
)
def test_the_classifier_alone_is_new(
    architecture: dict[str, Any], net: Any, heads: set[str], shape: tuple[int, int], tmp_path: Path
) -> None:
    path, state = saved(net(), tmp_path)
    config = trained(**architecture, weights=path)
    first = begun(config, 3, 0, *shape)
    classifier = {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    assert differing(first, state) == classifier
    assert all(first[name].shape[0] == 3 for name in classifier)
    assert not differing(begun(config, 3, 0, *shape), first)
    assert {f"{head}.weight" for head in heads} <= differing(begun(config, 3, 1, *shape), first) <= classifier
    found, digest = begin(config, 3, *shape)
    assert digest == hash_weights(state)
    assert "its weights are for 7 classes, and its classifier is new, for 3" in found.changes


def test_with_as_many_classes_the_classifier_is_kept(tmp_path: Path) -> None:
    path, state = saved(timm.create_model("test_resnet", num_classes=7), tmp_path)
    config = trained(timm="test_resnet", weights=path)
    assert not differing(begun(config, 7, 0), state)
    assert not begin(config, 7, 3, 32)[0].changes


@pytest.mark.parametrize("channels", [1, 3])
def test_what_timm_publishes_is_a_beginning_too(channels: int, tmp_path: Path) -> None:
    """timm sums the first layer's weights over the colours for grey images."""
    path, state = saved(timm.create_model("test_resnet"), tmp_path)
    overlay = {"pretrained_cfg_overlay": {"file": path}}  # replaces the download
    config = trained(timm="test_resnet", weights="pretrained", args=overlay)
    found = begun(config, 7, 0, channels)
    if channels == 1:
        state["conv1.0.weight"] = state["conv1.0.weight"].sum(1, keepdim=True)
    assert differing(found, state) == {"fc.weight", "fc.bias"}


def test_without_weights_it_begins_at_random() -> None:
    config = trained(timm="test_resnet")
    torch.manual_seed(5)
    expected = build(config, 7, 3).net.state_dict()
    assert not differing(begun(config, 7, 5), expected)
    assert begin(config, 7, 3, 32)[1] is None


def test_what_was_trained_from_it_is_loaded_by_its_card_without_the_first_weights(tmp_path: Path) -> None:
    path, _ = saved(timm.create_model("test_resnet"), tmp_path)
    overlay = {"pretrained_cfg_overlay": {"file": path}}
    for own in ({"weights": path}, {"weights": "pretrained", "args": overlay}):
        config = trained(timm="test_resnet", **own)
        weights = begun(config, 7, 0)
        stored = model_config_from(model_config_as_dict(as_built(config, 7, 3)))
        assert stored.args["num_classes"] == 7
        assert not differing(load(stored, 7, 3, weights).net.state_dict(), weights)
        assert not differing(load(config, 7, 3, weights).net.state_dict(), weights)


@pytest.mark.parametrize(
    ("architecture", "net", "message"),
    [
        (
            own_factory("behind_relu"),
            nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 7), nn.ReLU()),
            "its classifier, which is to be new, cannot be found",
        ),
        (
            own_factory("plain", width=5),
            nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 7)),
            r"do not fit the model; keys of another shape: .*1.weight is \(4, 64\), the model's \(5, 64\)",
        ),
        (
            own_factory("behind_relu"),
            nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 3), nn.ReLU()),
            r"do not fit the model; keys of another shape: 1.bias is \(5,\), the model's \(4,\)",
        ),
        (
            own_factory("single"),
            nn.Sequential(nn.Flatten(), nn.Linear(256, 3)),  # of larger images
            r"do not fit the model; keys of another shape: 1.weight is \(3, 256\), the model's \(3, 64\)$",
        ),
        (
            own_factory("single"),
            nn.Sequential(nn.Flatten(), nn.Linear(256, 7)),
            r"do not fit the model; keys of another shape: .*1.weight is \(7, 256\), the model's \(3, 64\)$",
        ),
        (own_factory("plain"), nn.Linear(4, 7), "do not fit the model; keys missing: 1.weight, 1.bias"),
        ({"timm": "test_resnet"}, nn.Linear(4, 7), "do not fit the model; keys missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    architecture: dict[str, Any], net: nn.Module, message: str, tmp_path: Path
) -> None:
    path, _ = saved(net, tmp_path)
    with pytest.raises(InputError, match=message):
        begin(trained(**architecture, weights=path), 3, 1 if "factory" in architecture else 3, 8)


def test_weights_that_cannot_be_had_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such weights file"):
        begin(trained(timm="test_resnet", weights=str(tmp_path / "none")), 3, 3, 32)
