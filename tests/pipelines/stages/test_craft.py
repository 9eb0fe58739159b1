"""What a worker crafts where memory is short, and what is said of the crafting."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hand_made import HandMade, hand_made
from torch import Tensor, nn

from align_core.attacks import AttackConfig
from pipelines.compute.ray_data import WATCH
from pipelines.stages.craft import Crafter, CraftItem, craft_job, crafting_notes


class Small(nn.Module):
    """Stands for a surrogate on a device that holds the gradients of two images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad and len(images) > 2:
            raise torch.OutOfMemoryError
        logits: Tensor = self.net(images)
        return logits


@pytest.fixture
def experiment(tmp_path: Path) -> HandMade:
    attacks = {"vmi": {"method": "vmi", "eps": "8/255", "steps": 2, "samples": {"name": "variance", "count": 3}}}
    return hand_made(tmp_path, attacks=attacks, compute={"chunk": 5})


def test_a_chunk_that_memory_did_not_hold_is_crafted_in_smaller_passes_and_says_so(
    experiment: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint = experiment.blueprint()
    job = craft_job(blueprint, "cpu", threads=1, patience=60)
    crafter, item = Crafter(job), CraftItem(surrogate="source", attack="vmi", chunk=0, clean=job.images.read(0))
    table = job.tables["source/vmi"]
    whole = crafter(item)
    kept = table.read_chunk(blueprint.store, 0, 5)
    blueprint.store.delete(table.chunk_file(0))
    plain = crafter.networks.mean_of
    monkeypatch.setattr(crafter.networks, "mean_of", lambda *of: Small(plain(*of)))
    small = crafter(item)
    halved = table.read_chunk(blueprint.store, 0, 5)
    assert (whole["made"], whole["in_smaller_passes"]) == (True, False)
    assert (small["made"], small["in_smaller_passes"]) == (True, True)
    assert set(kept["pass_rows"].to_pylist()) == {100}
    assert set(halved["pass_rows"].to_pylist()) == {1}  # 100, 50, 25, 12, 6, 3, 1
    assert halved["image"].equals(kept["image"])


def test_what_is_said() -> None:
    notes = crafting_notes({"source under mi": 3, "aligned under mi": 0}, {"source under vmi": 2, "source under mi": 0})
    assert [note.partition(", ")[0] for note in notes] == [
        "source under mi: the gradient of 3 images was zero at every step",
        "source under vmi: memory did not hold a whole pass",
    ]
    assert "2 chunks were crafted in smaller ones" in notes[1] and "`pass_rows`" in notes[1]


def test_every_pass_counts_as_progress_and_many_gradients_may_take_long(
    experiment: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = craft_job(experiment.blueprint(), "cpu", threads=1, patience=60)
    passes: list[int] = []
    monkeypatch.setattr(WATCH, "progress", lambda: passes.append(1))
    Crafter(job)(CraftItem(surrogate="source", attack="vmi", chunk=0, clean=job.images.read(0)))
    assert job.attacks["vmi"].gradients == 5  # one, three around it, and one at the second step
    assert len(passes) == 2  # all points of one step make a pass
    assert job.longest == 1
    assert replace(job, attacks={"ops": AttackConfig(method="ops", eps=0.1)}).longest == 901
