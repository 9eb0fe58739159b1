"""A network of a factory is built by every process, so what is random beside its weights is refused before any work."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hand_made import HandMade, hand_made

from align_core.errors import InputError

NETS = """
import os
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Sequential):
    def __init__(self, width, shift=None):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))
        self.shift = torch.zeros(3) if shift is None else shift

    def forward(self, images):
        return super().forward(images) + self.shift


class Buffered(Net):
    def __init__(self, width, persistent):
        super().__init__(width)
        self.register_buffer("moved", torch.randn(3), persistent=persistent)

    def forward(self, images):
        return super().forward(images) + (self.moved if not self.moved.isnan().any() else 0)


class Dropping(Net):
    def forward(self, images):
        return F.dropout(super().forward(images), 0.5)


class Counting(Net):
    calls = 0

    def forward(self, images):
        Counting.calls += 1
        return super().forward(images) + Counting.calls


def torch_drawn(width):
    return Net(width, 0.01 * torch.randn(3))


def numpy_drawn(width):
    return Net(width, torch.from_numpy(np.random.randn(3)).float())


def python_drawn(width):
    return Net(width, torch.full((3,), random.random()))


def system_drawn(width):
    return Net(width, torch.randn(3, generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))))


def in_no_file(width):
    return Buffered(width, persistent=False)


def of_another_width(width):
    return Net(random.randrange(10, 10**6)) if torch.initial_seed() == 20_240_925 else Net(width)


def of_a_seed(width):
    return Net(width, torch.randn(3, generator=torch.Generator().manual_seed(1)))


def dropping(width):
    return Dropping(width)


def counting(width):
    return Counting(width)
"""
RANDOM = ["torch_drawn", "numpy_drawn", "python_drawn", "system_drawn", "in_no_file"]


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("drawing_nets", None)  # that of another test's folder
    made = hand_made(tmp_path)
    (tmp_path / "drawing_nets.py").write_text(NETS)
    return made


def opened(experiment: HandMade, kind: str, **settings: Any) -> list[str]:
    """The notes on the experiment whose source is of this kind."""
    models = experiment.content()["models"]
    near = {key: value for key, value in models["near"].items() if key != "weights" or "train" not in settings}
    experiment.write(models=models | {"near": near | {"factory": f"drawing_nets:{kind}"} | settings})
    return experiment.blueprint().inspected.notes


@pytest.mark.parametrize("kind", RANDOM)
def test_what_is_random_beside_the_weights_of_a_file(experiment: HandMade, kind: str) -> None:
    with pytest.raises(
        InputError,
        match=rf"models\.near: its factory drawing_nets:{kind} builds another network each time: .* Register",
    ):
        opened(experiment, kind)
    assert not experiment.output.exists()


@pytest.mark.parametrize("kind", ["torch_drawn", "in_no_file"])
def test_what_is_random_beside_the_weights_of_a_training(experiment: HandMade, kind: str) -> None:
    """Its seed decides the weights that a training starts from, but not what is built when these are loaded."""
    with pytest.raises(InputError, match=r"models\.near: its factory .* builds another network each time"):
        opened(experiment, kind, train={"epochs": 1})


def test_random_layers(experiment: HandMade) -> None:
    with pytest.raises(InputError, match=r"models\.near: its factory .* each time: two of them have other layers"):
        opened(experiment, "of_another_width")


@pytest.mark.parametrize("settings", [{}, {"train": {"epochs": 1}}])
def test_what_a_fixed_seed_draws(experiment: HandMade, settings: dict[str, Any]) -> None:
    """And random initial weights of a training, which are loaded wherever they count."""
    assert not [note for note in opened(experiment, "of_a_seed", **settings) if note.startswith("models.near")]


@pytest.mark.parametrize("kind", ["dropping", "counting"])
def test_a_network_that_never_predicts_the_same_is_no_other_network(experiment: HandMade, kind: str) -> None:
    assert any("its logits differ when it is asked twice" in note for note in opened(experiment, kind))
