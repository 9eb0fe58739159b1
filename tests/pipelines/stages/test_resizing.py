"""A run says which of its models resize the images of the experiment."""

import sys
from pathlib import Path

import pytest
from hand_made import hand_made

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
    experiment.write(models=models, targets=["twin", "large", "free", "less"])
    said = ["8 px images are resized to 160 for large, 400 times as many pixels to compute with"]
    said += [f"{said[0].replace('large', 'free')}; models.free.input_size: 8 trains it on them as they are"]
    said += ["8 px images are resized to 15 for less"]
    blueprint = open_blueprint(Request(experiment.file, quiet=True))
    assert resizings(blueprint) == said
    blueprint.inspected.save(blueprint.store)

    def ask_again(*_: object) -> None:
        raise AssertionError("its size is known")

    monkeypatch.setattr(resizing, "as_built", ask_again)
    assert resizings(open_blueprint(Request(experiment.file, quiet=True))) == said
