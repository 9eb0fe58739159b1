"""Two data-parallel workers train a network with parameters that no step uses, and end with the same weights."""

from pathlib import Path

import habits
import torch
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from align_core.align_config import AlignConfig
from align_core.alignment import Alignment
from align_core.weights import State

KINDS = {"plain": habits.Plain, "unused": habits.Unused, "tied": habits.Tied}


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    ends: dict[str, State] = {}
    runs = (("plain", False, 1), ("plain", True, 1), ("unused", True, 1), ("tied", True, 1), ("plain", False, 2))
    for kind, find_unused, accumulate in runs:

        def wrap(module: nn.Module, find_unused: bool = find_unused) -> nn.Module:
            return DistributedDataParallel(module, find_unused_parameters=find_unused)

        torch.manual_seed(0)
        source, witness = KINDS[kind](), habits.Plain()
        config = AlignConfig(accumulate=accumulate)
        alignment = Alignment(source, [witness], config, total_steps=4, seed=0, wrap=wrap, rank=rank)
        generator = torch.Generator().manual_seed(rank)
        for _ in range(3):
            alignment.step(torch.rand((2, *habits.SHAPE), generator=generator), torch.tensor([0, 1]))
        assert alignment.leaves_parameters_unused == (kind == "unused")
        name = f"{kind} {find_unused}" if accumulate == 1 else "in parts"
        ends[name] = {name: value.clone() for name, value in source.state_dict().items()}
    torch.save(ends, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_parameters_that_no_step_uses(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_work, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for kind, state in first.items():
        for name, value in state.items():
            if "running" not in name:  # BatchNorm's statistics are each worker's own
                assert torch.equal(value, second[kind][name]), (kind, name)
    for name, value in first["plain False"].items():
        assert torch.equal(value, first["plain True"][name]), name  # being asked to look changes nothing
    torch.manual_seed(0)
    before = habits.Unused().state_dict()
    for name, value in first["unused True"].items():
        if name.endswith(("weight", "bias")):
            assert torch.equal(value, before[name]) == name.startswith("other_head"), name
