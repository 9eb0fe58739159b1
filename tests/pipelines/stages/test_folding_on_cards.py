"""The card of a network that was made here says by how much its logits differ where its BatchNorms are folded."""

import re
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hand_made import CURVE, hand_made
from one_worker import WORKER
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from align_core.weights import to_bytes
from pipelines.compute.tuned import Tuned
from pipelines.progress import Progress
from pipelines.run.resolved import FOUND, write_resolved
from pipelines.stages.align import _commit_result, _UnderWay
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.makings import Making
from pipelines.stages.payload import fine_tune_of

State = dict[str, Tensor]
FACTORY = """
from torch import nn

def net(fused=True):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
"""


@pytest.fixture(params=["models/aligned", "trained/near"])
def making(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Blueprint, Making]:
    """What is to be made of a network with a convolution and a BatchNorm: an alignment of it, or its training."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    experiment = hand_made(tmp_path)
    (tmp_path / "networks_with_batchnorm.py").write_text(FACTORY)
    save_file(weights(mean=0.0), tmp_path / "near.safetensors")
    is_trained = request.param == "trained/near"
    near = {"factory": "networks_with_batchnorm:net"} | (
        {"train": {}} if is_trained else {"weights": "near.safetensors"}
    )
    experiment.write(models=experiment.content()["models"] | {"near": near})
    blueprint = experiment.blueprint()
    (own,) = blueprint.trainings() if is_trained else blueprint.alignments()
    assert own.folder == request.param and own.folded == (("0", "1"),)
    return blueprint, own


def weights(mean: float) -> State:
    """Weights of the network, whose BatchNorm subtracts this mean: where it is large, digits are lost on the way."""
    torch.manual_seed(0)
    return {
        "0.weight": torch.randn(4, 1, 3, 3), "0.bias": torch.randn(4) + mean,
        "1.weight": 1 + torch.rand(4), "1.bias": torch.randn(4),
        "1.running_mean": torch.randn(4) + mean, "1.running_var": 0.5 + torch.rand(4),
        "1.num_batches_tracked": torch.tensor(9),
        "4.weight": torch.randn(3, 144) / 4, "4.bias": torch.randn(3),
    }  # fmt: skip


def made(blueprint: Blueprint, making: Making, state: State) -> dict[str, Any]:
    """The card, after a fine-tune that ended with these weights."""
    future: Future[Any] = Future()
    future.set_result(Tuned([to_bytes(state)], CURVE))
    under_way = _UnderWay(making, fine_tune_of(blueprint, making, WORKER), 0.0)
    assert _commit_result(blueprint, future, under_way, Progress(), []) is not None
    return blueprint.store.read_json(f"{making.folder}/card.json") or {}


def by_hand(state: State) -> float:
    """The largest difference, from the definition of BatchNorm, on two images of random pixels, in channels-last.

    It is rounding, which another order of the same operations changes, so that no more than its size is determined.
    """
    images = torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(20_240_924))

    def logits(features: Tensor) -> Tensor:
        return features.relu().flatten(1) @ state["4.weight"].T + state["4.bias"]

    def by_channel(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)

    deviation = (state["1.running_var"] + 1e-5).sqrt()
    images = images.to(memory_format=torch.channels_last)
    features = F.conv2d(images, state["0.weight"], state["0.bias"])
    normalised = (features - by_channel(state["1.running_mean"])) / by_channel(deviation)
    plain = logits(normalised * by_channel(state["1.weight"]) + by_channel(state["1.bias"]))
    scale = state["1.weight"] / deviation
    bias = (state["0.bias"] - state["1.running_mean"]) * scale + state["1.bias"]
    folded = logits(F.conv2d(images, state["0.weight"] * scale.view(-1, 1, 1, 1), bias))
    return float((plain - folded).abs().max())


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_the_card_has_the_difference_of_the_final_weights(making: tuple[Blueprint, Making], mean: float) -> None:
    card, expected = made(*making, weights(mean)), by_hand(weights(mean))
    assert card["folded"] == ["1"]
    assert expected / 4 < card["folding_difference"] < expected * 4
    assert mean / 1e8 < expected < mean / 1e6


def test_ordinary_weights_differ_by_rounding_and_nothing_is_said(
    making: tuple[Blueprint, Making], capsys: pytest.CaptureFixture[str]
) -> None:
    card = made(*making, weights(0.0))
    assert 0 < card["folding_difference"] < 1e-5
    assert by_hand(weights(0.0)) < 1e-5
    assert "BatchNorms folded" not in capsys.readouterr().err


def test_more_than_rounding_is_said(making: tuple[Blueprint, Making], capsys: pytest.CaptureFixture[str]) -> None:
    card = made(*making, weights(1e6))
    assert re.search(
        rf"{making[1].name}: with its BatchNorms folded, .* its logits differ by {card['folding_difference']:.2g}, "
        "which is more than rounding",
        capsys.readouterr().err,
    )


def test_a_network_without_batchnorm_has_none(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path).blueprint()
    (own,) = (making for making in blueprint.alignments() if making.name == "aligned")
    state = {
        "1.weight": torch.zeros(2, 64),
        "1.bias": torch.zeros(2),
        "2.weight": torch.zeros(3, 2),
        "2.bias": torch.zeros(3),
    }
    card = made(blueprint, own, state)
    assert (card["folded"], card["folding_difference"]) == ([], 0.0)


def test_the_record_of_the_experiment_has_the_difference_of_given_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    experiment = hand_made(tmp_path)
    (tmp_path / "networks_with_batchnorm.py").write_text(FACTORY)
    save_file(weights(mean=1e2), tmp_path / "near.safetensors")
    near = {"factory": "networks_with_batchnorm:net", "weights": "near.safetensors"}
    experiment.write(models=experiment.content()["models"] | {"near": near})
    blueprint = experiment.blueprint()
    write_resolved(blueprint)
    comments = blueprint.store.read("experiment.yaml").decode().partition(FOUND)[2]
    found = yaml.safe_load("\n".join(line.removeprefix("# ") for line in comments.splitlines()))["folded"]
    expected = by_hand(weights(mean=1e2))
    assert found.keys() == {"near"} and found["near"]["batchnorms"] == 1
    assert expected / 4 < found["near"]["largest_difference"] < expected * 4
