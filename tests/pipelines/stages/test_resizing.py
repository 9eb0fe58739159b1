"""A run says which of its models resize the images of the experiment."""

import sys
from pathlib import Path

import pytest
from hand_made import hand_made
from safetensors.torch import save_file

from align_core.model_config import ModelConfig, TrainConfig
from align_core.models import build
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import resizing
from pipelines.stages.resizing import resizings


def test_models_of_the_run_that_resize_are_named_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    experiment = hand_made(tmp_path)
    models = experiment.content()["models"]
    large = {"timm": "test_vit", "args": {"in_chans": 1, "num_classes": 3}, "train": {}}
    models |= {"large": large, "unused": large, "near": models["near"] | {"input_size": 8}}
    models["free"] = {"timm": "test_resnet", "args": {"in_chans": 1, "num_classes": 3}, "train": {}}
    models["less"] = models["free"] | {"input_size": 15}
    for name, changes in {"own": {}, "told": {"input_size": 160}}.items():
        network = build(ModelConfig(timm="test_resnet", train=TrainConfig()), 3, channels=1).net
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
        models[name] = {"timm": "test_resnet", "args": {"in_chans": 1}, "weights": f"{name}.safetensors"} | changes
    experiment.write(models=models, targets=["twin", "large", "free", "less", "own", "told"])
    said = ["8 px images are resized to 160 for large, 400 times as many pixels to compute with"]
    said += [f"{said[0].replace('large', 'free')}; models.free.input_size: 8 trains it on them as they are"]
    said += ["8 px images are resized to 15 for less"]
    own = "; if its weights were trained at 8 px, write models.own.input_size: 8, or its accuracy suffers"
    said += [f"{said[0].replace('large', 'own')}{own}", said[0].replace("large", "told")]
    blueprint = open_blueprint(Request(experiment.file, quiet=True))
    assert resizings(blueprint) == said
    blueprint.inspected.save(blueprint.store)

    def ask_again(*_: object) -> None:
        raise AssertionError("its size is known")

    monkeypatch.setattr(resizing, "as_built", ask_again)
    assert resizings(open_blueprint(Request(experiment.file, quiet=True))) == said
