"""A worker holds as many networks as it may, those it used last, and always those of one prediction."""

from typing import Any

import pytest
import torch
from torch import nn

from pipelines.compute.loading import LoadedNetworks


class Loader:
    """Stands for the loader of a run: every network is a number, and what is loaded is noted."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

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
        (2, ["1 2 3", "1 2 3", "1 2 3"], "123"),  # an ensemble of more is held whole
        (2, ["1 2 3", "4", "1 2"], "123412"),
        (3, ["1 2", "3", "1 2", "4", "1 2"], "1234"),
    ],
)
def test_the_latest_stay(most: int | None, asked: list[str], loaded: str) -> None:
    loader = Loader()
    networks = LoadedNetworks(loader, "cpu", most)  # type: ignore[arg-type]
    for names in asked:
        numbers = [int(name) for name in names.split()]
        assert predicted(networks, *names.split()) == pytest.approx(sum(numbers) / len(numbers))
    assert "".join(loader.loaded) == loaded
