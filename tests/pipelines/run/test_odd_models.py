"""One run over models with the habits that real ones have: what works is made, and what diverges fails alone."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import odd_networks
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.run.status import status_of
from pipelines.stages.first_look import sample_of

KINDS = {"aux": "Aux", "unused": "Unused", "tied": "Tied", "seer": "Plain", "target": "Plain", "fragile": "Fragile"}
UNSEEN = 38  # position of a test image that no first look shows


def write_experiment(folder: Path, monkeypatch: pytest.MonkeyPatch, **others: Any) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(odd_networks.__file__, folder)
    for seed, (name, kind) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        state = getattr(odd_networks, kind)().state_dict()
        save_file({key: value.clone() for key, value in state.items()}, folder / f"{name}.safetensors")
    images = np.random.default_rng(0).integers(0, 128, (116, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(116) % 3
    images[UNSEEN + 16, 0, 0] = 255
    np.savez(folder / "images.npz", images=images, labels=labels)
    content = {
        "name": "odd",
        "output": str(folder / "runs"),
        "data": {
            "classes": 3,
            "image_size": 8,
            "train": {"kind": "npz", "path": "images.npz", "take": [0, 16]},
            "test": {"kind": "npz", "path": "images.npz", "take": [16, 116]},
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
        "compute": {"workers": 1, "chunk": 40},
        **others,
    }
    file = folder / "odd.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.mark.slow
def test_everything_but_the_diverging_variant(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_experiment(tmp_path, monkeypatch)
    assert main(["run", str(file), "--json"]) == 1
    output, errors = capfd.readouterr()
    assert output, errors  # a run that fails ends with 1 too, and says why there
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


def test_a_target_whose_logits_are_not_finite_on_an_image_that_no_look_showed(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert UNSEEN not in sample_of(np.arange(16, 116) % 3)
    file = write_experiment(tmp_path, monkeypatch, targets=["target", "fragile"], variants={})
    why = "chunk 0: the logits of fragile are not finite for 00054"
    assert main(["evaluate", str(file), "--clean", "--json"]) == 1
    result = json.loads(capfd.readouterr().out)
    assert result["holes"] == [f"clean/fragile: {why}"]
    assert {row["name"] for row in result["rows"]} == {"aux", "seer", "target"}
    folders = ["clean/fragile", *(f"outcomes/{surrogate}/fgsm/fragile" for surrogate in ("source", "aligned"))]
    for made in (1, 0):
        assert main(["run", str(file), "--json"]) == 1
        result = json.loads(capfd.readouterr().out)
        assert sorted(result["holes"]) == sorted(f"{folder}: {why}" for folder in folders)
        assert result["made"]["align"] == made
        assert {row["surrogate"] for row in result["means"]} == {"source", "aligned"}
        assert {row["rate"] for row in result["means"]} == {None}  # of one target of two
    # Only the chunk that failed was asked for again: 2 of the 3 chunks of each of these tables wait for it.
    assert result["made"]["evaluate"] == 0
    states = {entry.folder: (entry.state, entry.done) for entry in status_of(Request(file)).entries}
    assert {folder for folder, (state, _) in states.items() if state != "done"} == set(folders)
    assert {states[folder] for folder in folders} == {("failed", 2)}
    assert main(["verify", str(file)]) == 0
