"""One run over models with the habits that real ones have: what works is made, and what diverges fails alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.run.status import status_of

NETWORKS = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(6, 3)
    def forward(self, images):
        return self.head(self.body(images))

class Aux(Plain):
    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(6, 3)
    def forward(self, images):
        print("forward is chatty")
        features = self.body(images)
        return (self.head(features), self.aux(features)) if self.training else self.head(features)

class Unused(Plain):
    def __init__(self):
        super().__init__()
        self.other_head = nn.Linear(6, 4)

class Tied(Plain):
    def __init__(self):
        super().__init__()
        self.same_head = self.head
    def forward(self, images):
        return self.same_head(self.body(images))
"""
KINDS = {"aux": "Aux", "unused": "Unused", "tied": "Tied", "seer": "Plain", "target": "Plain"}


def write_experiment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    (folder / "odd_networks.py").write_text(NETWORKS)
    import odd_networks

    for seed, (name, kind) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        state = getattr(odd_networks, kind)().state_dict()
        save_file({key: value.clone() for key, value in state.items()}, folder / f"{name}.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 3)
    content = {
        "name": "odd",
        "output": str(folder / "runs"),
        "data": {
            "classes": 3,
            "image_size": 8,
            "train": {"kind": "npz", "path": "images.npz", "take": [0, 16]},
            "test": {"kind": "npz", "path": "images.npz", "take": [16, 40]},
        },
        "models": {
            name: {"factory": f"odd_networks:{kind}", "weights": f"{name}.safetensors"} for name, kind in KINDS.items()
        },
        "source": "aux",
        "witnesses": ["seer"],
        "targets": ["target"],
        "controls": [],
        "align": {"epochs": 1, "batch_size": 4, "augment": {"crop": "none"}},
        "variants": {
            "hot": {"align": {"temperature": 1e30}},
            "tied-variant": {"source": "tied"},
            "in-two": {"source": "unused", "align": {"workers": 2}},
        },
        "attacks": {"fgsm": {"method": "fgsm", "eps": "8/255"}},
        "compute": {"workers": 1, "chunk": 12},
    }
    file = folder / "odd.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_everything_but_the_diverging_variant(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_experiment(tmp_path, monkeypatch)
    assert main(["run", str(file), "--json"]) == 1
    output, errors = capfd.readouterr()
    result = json.loads(output)  # nothing but the result, although a forward pass prints
    assert [hole.partition(": ")[0] for hole in result["holes"]] == ["models/hot"]
    assert result["made"]["align"] == 3
    assert {row["surrogate"] for row in result["means"]} == {
        "source", "aligned", "source-tied", "tied-variant", "source-unused", "in-two",
    }  # fmt: skip
    assert "models.aux: in train mode it returns a tuple" in errors
    folder = tmp_path / "runs" / "odd"
    for name, model, unchanged in (
        ("aligned", "aux", ["aux.weight", "aux.bias"]),
        ("in-two", "unused", ["other_head.weight", "other_head.bias"]),
    ):
        before, after = (
            load_file(tmp_path / f"{model}.safetensors"),
            load_file(folder / "models" / name / "model.safetensors"),
        )
        assert [key for key in unchanged if not torch.equal(before[key], after[key])] == []
        assert not torch.equal(before["head.weight"], after["head.weight"])
    tied = load_file(folder / "models" / "tied-variant" / "model.safetensors")
    assert torch.equal(tied["head.weight"], tied["same_head.weight"])
    states = {entry.folder: entry.state for entry in status_of(Request(file)).entries}
    assert states.pop("models/hot") == "failed"
    assert set(states.values()) == {"done"}
    page = (folder / "report" / "report.html").read_text()
    assert "Not there: models/hot: its alignment failed: the loss is" in page
    assert main(["run", str(file), "--json"]) == 1  # and nothing is aligned again
    assert json.loads(capfd.readouterr().out)["made"] == {"report": 0}
