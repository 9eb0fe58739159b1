"""A worker keeps the networks that it used last, up to a limit, and always all those of one prediction."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.compute.loading import LoadedNetworks


class Loader:
    """Replaces the loader of a run: a network multiplies by the number that is its name, and loads are recorded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.networks = {name: SimpleNamespace(folded=0) for name in "1234"}

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
