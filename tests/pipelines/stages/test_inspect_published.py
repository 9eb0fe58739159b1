"""Networks that see other pictures than those they were published with are named before a run and in a plan."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from pipelines.cli import main
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.inspect_published import Published

MODELS = {"near": "test_resnet", "seer": "test_vit", "far": "test_efficientnet"}  # 160 of 168 px; the first bilinear


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment with random weights of timm's smallest networks, of as many classes as the published ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), dtype=np.uint8)
    np.savez("images.npz", images=images, labels=np.arange(8))
    for seed, (name, architecture) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        save_file(timm.create_model(architecture).state_dict(), f"{name}.safetensors")
    return {
        "name": "published",
        "data": {
            "classes": 1000, "image_size": 16, "train": {"kind": "npz", "path": "images.npz", "take": [0, 4]},
            "test": {"kind": "npz", "path": "images.npz", "take": [4, 8]},
        },
        "models": {n: {"timm": a, "weights": f"{n}.safetensors"} for n, a in MODELS.items()},
        "source": "near", "witnesses": ["seer"], "targets": ["far"],
        "attacks": {"x": {"method": "fgsm", "eps": "8/255"}},
    }  # fmt: skip


def planned(experiment: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    Path("e.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["plan", "e.yaml", "--json"]) == 0
    return {other["network"]: other for other in json.loads(capsys.readouterr().out)["published"]["other_crops"]}


def test_a_plan_names_published_and_used_crop_of_each_network(
    experiment: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(experiment, capsys)
    assert found.keys() == MODELS.keys()
    assert found["near"] == {
        "network": "near",
        "published": "160 of 168 px (share 0.952), bilinear (test_resnet.r160_in1k)",
        "used": "16 of 16 px (share 1.000), bicubic",
    }
    assert main(["plan", "e.yaml"]) == 0
    assert "  near: 160 of 168 px (share 0.952), bilinear (test_resnet.r160_in1k)" in capsys.readouterr().out


def test_none_is_named_whose_crop_the_experiment_has(
    experiment: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment["data"] |= {"image_size": 160, "resize": 168}
    assert planned(experiment, capsys).keys() == {"near"}
    experiment["data"]["interpolation"] = "bilinear"
    assert planned(experiment, capsys).keys() == {"seer", "far"}


def test_a_run_says_it_first_and_what_was_found_is_kept(
    experiment: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    planned(experiment, capsys)
    kept = Path("runs/published/.seen/published.json")
    assert main(["report", "e.yaml"]) == 1  # there is nothing to report yet
    said = capsys.readouterr().err
    assert "images are 16 of 16 px (share 1.000), bicubic; published accuracies" in said
    assert said.index("  far: 160 of 168 px (share 0.952), bicubic") < said.index("has to come first")
    assert not kept.exists()  # neither a plan nor what is refused writes anything
    for damage in ("", "{", "[]", '{"x": [{"y": 1}]}'):
        blueprint = open_blueprint(Request(Path("e.yaml"), quiet=True))
        assert [other.network for other in blueprint.inspected.published.other_crops] == sorted(MODELS)
        blueprint.inspected.save(blueprint.store)
        assert len(json.loads(kept.read_text())) >= 3
        kept.write_text(damage)


def test_a_file_that_may_come_from_tags_of_another_normalisation_is_named() -> None:
    said = Published(normalisations={"near": ["vit.a", "vit.b"]}).lines()
    assert len(said) == 1 and said[0].startswith("models.near: ") and "vit.a or vit.b, write that as `timm`" in said[0]
