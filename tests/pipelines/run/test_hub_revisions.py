"""experiment.yaml lists the commit of each model that came from Hugging Face's hub."""

from pathlib import Path

import pytest
import timm
import yaml
from hand_made import CLASSES, hand_made
from huggingface_hub import constants

from pipelines.run.request import Request, open_blueprint
from pipelines.run.resolved import FOUND, write_resolved

COMMIT = "c" * 40


def found_in(folder: Path, **models: dict[str, object]) -> dict[str, object]:
    experiment = hand_made(folder)
    experiment.write(models=experiment.content()["models"] | models)
    blueprint = open_blueprint(Request(experiment.file, quiet=True), to_write=True)
    write_resolved(blueprint)
    comments = blueprint.store.read("experiment.yaml").decode().partition(FOUND)[2]
    read: dict[str, object] = yaml.safe_load(comments.replace("# ", ""))
    return read


def test_it_stands_in_experiment_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache/models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    net = timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1)
    timm.models.save_for_hf(net, str(repository / "snapshots" / COMMIT), model_config={"num_classes": CLASSES})
    twin = {"timm": "hf-hub:someone/tiny", "weights": "pretrained", "input_size": 16}
    assert found_in(tmp_path, twin=twin)["revisions"] == {"twin": COMMIT}


def test_nothing_is_listed_where_no_model_came_from_the_hub(tmp_path: Path) -> None:
    assert "revisions" not in found_in(tmp_path)
