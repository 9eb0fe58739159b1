"""Logits that are not finite are a failed chunk that names the images and the model, never a class."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import CLASSES, HandMade, hand_made
from one_worker import crafter_of
from safetensors.torch import load_file, save_file

from align_core.finite import check_finite
from pipelines.stages import payload
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.craft import CraftItem
from pipelines.stages.evaluate import EvaluateItem, EvaluateJob, Evaluator

NETWORKS = '''
import torch
from torch import nn

class Fragile(nn.Module):
    """Returns NaN for images whose first pixel is above 0.9."""
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))

    def forward(self, images):
        bright = images[:, :, :1, :1].flatten(1) > 0.9
        return torch.where(bright, torch.nan, self.net(images))

def linear(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))
'''


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    """`twin`, a target, and `seer`, the witness, break on bright images, of which there are two, of one label each.

    The images that are looked at during inspection are dark, as they are replaced later.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "fragile_networks", raising=False)
    experiment = hand_made(tmp_path, controls=["ensemble"])
    (tmp_path / "fragile_networks.py").write_text(NETWORKS)
    models = experiment.content()["models"]
    for name in ("twin", "seer"):
        models[name]["factory"] = "fragile_networks:Fragile"
        state = load_file(tmp_path / f"{name}.safetensors")
        save_file({f"net.{key}": value for key, value in state.items()}, tmp_path / f"{name}.safetensors")
    experiment.write(models=models, controls=["ensemble"])
    with np.load(tmp_path / "images.npz") as stored:
        np.savez(tmp_path / "images.npz", images=stored["images"] // 2, labels=stored["labels"])
    return experiment


def bright_chunk(blueprint: Blueprint) -> np.ndarray:
    """The images of the only chunk, two of them bright."""
    pixels = np.array(payload.test_images(blueprint).read(0))
    pixels[[2, 7], :, 0, 0] = 255
    return pixels


def test_a_prediction(experiment: HandMade) -> None:
    blueprint = experiment.finish()
    clean, *_ = blueprint.evaluations
    (turn,) = replace(clean, most=10).turns
    for own in turn.predictions:
        blueprint.store.delete(own.table.finished_file)
    job = EvaluateJob(
        store=blueprint.store,
        loader=payload.network_loader(blueprint),
        images=payload.test_images(blueprint),
        turns=[turn],
        seed=0,
        device="cpu",
        threads=1,
        most_networks=2,
        patience=60.0,
    )
    everything = json.dumps(list(range(len(turn.predictions))))
    item = EvaluateItem(number=0, chunk=0, lacking=everything, images=bright_chunk(blueprint))
    done = Evaluator(job)(item)
    found = turn.joint.failures(blueprint.store, blueprint.store.listing())
    assert all(failure.is_final for failure in found.values())
    assert {folder: failure.reason for folder, failure in found.items()} == {
        "clean/twin": "chunk 0: the logits of twin are not finite for 00006, 00011",
        "clean/seer": "chunk 0: the logits of seer are not finite for 00006, 00011",
        "clean/ensemble": "chunk 0: the logits of seer are not finite for 00006, 00011",
    }
    assert len(json.loads(done["made"])) == len(turn.predictions) - len(found)
    assert turn.joint.finish(blueprint.store, [sum(blueprint.rows)]) == []  # the others are complete without them
    assert set(turn.joint.unfinished(blueprint.store.listing())) == found.keys()


@pytest.mark.parametrize(("surrogate", "fails"), [("source", False), ("ensemble", True)])
def test_adversarial_images(experiment: HandMade, surrogate: str, fails: bool) -> None:
    blueprint = experiment.finish()
    table = blueprint.adversarial(blueprint.by_name[surrogate], "mi")
    blueprint.store.delete(table.finished_file)
    crafter = crafter_of(blueprint)
    done = crafter(CraftItem(surrogate=surrogate, attack="mi", chunk=0, clean=bright_chunk(blueprint)))
    reason = table.final_failure(blueprint.store, blueprint.store.listing())
    assert done["made"] is not fails
    assert done["without_gradient"] == 0
    assert (reason is not None) is fails
    if fails:
        assert "not finite" in str(reason)
        assert "00006" in str(reason) and "00011" in str(reason)


def test_the_images_are_named() -> None:
    logits_BK = torch.zeros(9, CLASSES)
    check_finite(logits_BK, [str(row) for row in range(9)], "net")
    logits_BK[1:8, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.nan, torch.nan, torch.nan, torch.nan])
    with pytest.raises(FloatingPointError, match="the logits of net are not finite for 1, 2, 3, 4, 5 and 2 more"):
        check_finite(logits_BK, [str(row) for row in range(9)], "net")
