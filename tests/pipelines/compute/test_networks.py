"""A worker keeps the networks that it used last, up to a limit, and always all those of one prediction."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from align_core.folding import foldable
from align_core.model_config import ModelConfig
from align_core.models import build
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.networks import Network
from pipelines.storage.store import Store


class Loader:
    """Replaces the loader of a run: a network multiplies by the number that is its name, and loads are recorded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.networks = {name: SimpleNamespace(folded=()) for name in "1234"}

    def load(self, name: str, device: str) -> Any:
        self.loaded.append(name)
        network = nn.Linear(1, 1)
        nn.init.constant_(network.weight, float(name))
        nn.init.constant_(network.bias, 0.0)
        return network


def predicted(networks: LoadedNetworks, *names: str) -> float:
    with torch.no_grad():
        return float(networks.mean_of(names)(torch.ones(1, 1)))


@pytest.mark.parametrize(
    ("most", "asked", "loaded"),
    [
        (None, ["1", "2", "3", "1"], "123"),
        (2, ["1", "2", "1", "3", "1", "2"], "1232"),
        (1, ["1", "1", "2", "1"], "121"),
        (2, ["1 2 3", "1 2 3", "1 2 3"], "123"),  # an ensemble with more members than the limit is kept as a whole
        (2, ["1 2 3", "4", "1 2"], "123412"),
        (3, ["1 2", "3", "1 2", "4", "1 2"], "1234"),
    ],
)
def test_the_networks_used_last_stay_loaded(most: int | None, asked: list[str], loaded: str) -> None:
    loader = Loader()
    networks = LoadedNetworks(loader, "cpu", most)  # type: ignore[arg-type]
    for names in asked:
        numbers = [int(name) for name in names.split()]
        assert predicted(networks, *names.split()) == pytest.approx(sum(numbers) / len(numbers))
    assert "".join(loader.loaded) == loaded


def test_batchnorm_is_folded_where_it_predicts_and_not_where_it_is_trained(cifar10: Path) -> None:
    config = ModelConfig(
        factory="pipelines.recipes.cifar_models:resnet",
        args={"depth": 20},
        weights=str(cifar10 / "akamaster_resnet20-12fca82f.th"),
    )
    pairs = foldable(build(config, 10, 3).net).pairs
    network = Network("n", config, None, folded=tuple(tuple(pair) for pair in pairs))
    loader = NetworkLoader(Store("/nowhere", "n"), {"n": network, "plain": replace(network, folded=())}, 10, 3, "fp32")
    networks = LoadedNetworks(loader, "cpu")
    trained, predicting = networks.network("n"), networks.mean_of(["n"])
    assert sum(isinstance(part, nn.BatchNorm2d) for part in trained.modules()) == len(pairs) == 19
    assert not any(isinstance(part, nn.BatchNorm2d) for part in predicting.modules())
    assert networks.mean_of(["plain"]) is networks.network("plain")  # decided beforehand, not by the worker
    images = torch.rand(4, 3, 32, 32, generator=torch.manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(predicting(images), trained(images), rtol=1e-4, atol=1e-4)
