"""Two data-parallel workers end with the same weights by every kind of refinement, and where batches add up with one's.

The workers take every other image of a batch. Without BatchNorm and random numbers, the mean of their gradients is that
of one worker.
"""

from typing import Any

import habits
import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.weights import State

STEPS, ROWS = 4, 8
OPTIMIZER = OptimizerConfig(lr=0.05, schedule="constant")
ATTACK = {"name": "self_adversarial", "weight": 0.5, "steps": 2}


def smooth(width: int) -> nn.Sequential:
    """A network without BatchNorm."""
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, habits.CLASSES)
    )


def habit(kind: type[nn.Module]) -> nn.Module:
    """A network with BatchNorm, and perhaps with a head that it never uses."""
    torch.manual_seed(0)
    return kind()


# Those that end where one worker does, and those that draw random numbers or compare the images of a batch.
ADDING_UP: dict[str, dict[str, Any]] = {
    "a projection": {"loss": "hint"},
    "a projection beside logits": {"loss": ["kl", {"name": "hint", "weight": 2}], "label_weight": 0.5},
    "places": {"loss": "local"},
    "saa where it stands": {"loss": ["hint", "local"], "terms": [{**ATTACK, "eps": 0}]},
    "sam": {"update": {"name": "sam", "rho": 0.5}},
    "sam with a projection": {"loss": "hint", "update": {"name": "sam", "rho": 0.5}},
    "the gradient norm": {"update": "gradient_norm"},
    "a term past the wrapper": {"terms": ["input_gradient"]},
    "a term on logits that no loss sees": {"loss": "hint", "terms": ["input_gradient"]},
    "an average": {"keep": {"name": "ema", "decay": 0.5}},
    "frozen in part": {"loss": "hint", "freeze": ["*0.weight"]},
}
CASES: dict[str, dict[str, Any]] = {
    **ADDING_UP,
    "relations in a batch": {"loss": ["rkd", "nce"]},
    "saa": {"loss": ["kl", {"name": "local", "weight": 0.2}], "terms": [ATTACK]},
    "all terms": {"terms": ["input_gradient", {"name": "score_matching", "weight": 0.1}, ATTACK], "update": "sam"},
    "its own teacher": {"teacher": "source", "inputs": {"name": "pgd", "steps": 2}, "mix": "cutmix"},
}


def end_of(case: str, source: nn.Module, rank: int, world: int, find_unused: bool = False) -> State:
    """The weights that are kept, and the projections, after a few steps of one worker."""

    def wrap(module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module, find_unused_parameters=find_unused) if world > 1 else module

    config = AlignConfig(**CASES[case], optimizer=OPTIMIZER)
    alignment = Alignment(source, [smooth(5)], config, STEPS, 0, wrap, rank, shape=habits.SHAPE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        images: Tensor = torch.rand((ROWS, *habits.SHAPE), generator=generator)
        alignment.step(images[rank::world], (torch.arange(ROWS) % 3)[rank::world])
    assert alignment.leaves_parameters_unused == isinstance(source, habits.Unused)
    (kept,) = alignment.networks()
    kept |= {key: value for key, value in alignment.state().items() if key.startswith("projections.")}
    return {key: value.clone() for key, value in kept.items()}


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    ends: dict[str, State] = {}
    for case in CASES:
        ends[f"{case}, smooth"] = end_of(case, smooth(6), rank, 2)
        ends[f"{case}, smooth, unused"] = end_of(case, smooth(6), rank, 2, find_unused=True)
        ends[f"{case}, batchnorm"] = end_of(case, habit(habits.Plain), rank, 2)
        ends[f"{case}, a head too many"] = end_of(case, habit(habits.Unused), rank, 2, find_unused=True)
    torch.save(ends, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, State]]:
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(_work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
class TestTwoWorkers:
    @pytest.mark.parametrize("network", ["smooth", "smooth, unused", "batchnorm", "a head too many"])
    def test_end_with_the_same_weights(self, ends: list[dict[str, State]], case: str, network: str) -> None:
        first, second = (own[f"{case}, {network}"] for own in ends)
        for name, value in first.items():
            if "running" not in name:  # BatchNorm's statistics are each worker's own
                assert torch.equal(value, second[name]), name

    def test_are_not_changed_by_looking_for_unused_parameters(self, ends: list[dict[str, State]], case: str) -> None:
        for name, value in ends[0][f"{case}, smooth"].items():
            assert torch.equal(value, ends[0][f"{case}, smooth, unused"][name]), name


@pytest.mark.parametrize("case", ADDING_UP)
def test_two_workers_end_where_one_does(ends: list[dict[str, State]], case: str) -> None:
    alone, before = end_of(case, smooth(6), 0, 1), smooth(6).state_dict()
    both = ends[0][f"{case}, smooth"]
    assert both.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=1e-6)
        if name in before and name.startswith("0."):
            assert torch.equal(value, before[name]) == (case == "frozen in part" and name == "0.weight"), name
