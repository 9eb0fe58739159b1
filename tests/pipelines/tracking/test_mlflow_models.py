"""An aligned model is an MLflow model: another process loads it in three lines, and has the same logits."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from empty_store import put_empty_store
from hand_made import CLASSES, HandMade, hand_made
from logged import Logged, log

from align_core.model_config import ModelConfig
from align_core.models import load

# The three lines, and after them what is compared. Nothing but Witness and MLflow is there.
THREE_LINES = """
import mlflow
mlflow.set_tracking_uri({uri!r})
model = mlflow.pytorch.load_model("runs:/{run}/model")

import numpy as np, torch
images = torch.from_numpy(np.load({images!r}))
with torch.no_grad():
    parts = [model(images), torch.cat([model(images[:1]), model(images[1:])])]
assert not model.training
logits = mlflow.pyfunc.load_model("runs:/{run}/model").predict(images.numpy())

from mlflow.models import get_model_info
signature = get_model_info("runs:/{run}/model").signature
assert [signature.inputs.inputs[0].shape, signature.outputs.inputs[0].shape] == [(-1, 1, 8, 8), (-1, 3)]
np.save({logits!r}, np.stack([*(part.numpy() for part in parts), logits]))
"""


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path, variants={"mild": {"align": {"temperature": 2}}}, controls=["label_only"])
    put_empty_store(made.output)
    made.finish()
    return made


def with_models(experiment: HandMade) -> set[str]:
    """The runs that have an MLflow model."""
    logged = Logged(experiment)
    return {run.info.run_name for run in logged.runs if logged.client.list_artifacts(run.info.run_id, "model")}


@pytest.mark.parametrize("moved", [False, True])
def test_another_process_loads_it_in_three_lines_with_the_same_logits(
    experiment: HandMade, tmp_path: Path, moved: bool
) -> None:
    log(experiment)
    run = Logged(experiment).named("aligned").info.run_id
    images_BCHW = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    np.save(tmp_path / "images.npy", images_BCHW)
    own = ModelConfig(
        aligned=str(shutil.copytree(experiment.output / "by-hand" / "models" / "aligned", tmp_path / "own"))
    )
    (tmp_path / "hand_made_networks.py").rename(tmp_path / "kept.py")  # the model brings its factory with it
    output = experiment.output
    if moved:
        output = experiment.output.rename(tmp_path / "elsewhere")
        from pipelines.tracking.locations import follow_moved_artifacts

        follow_moved_artifacts(f"sqlite:///{output}/mlflow.db", lambda line: None)
    paths = {"images": f"{tmp_path}/images.npy", "logits": f"{tmp_path}/logits.npy"}
    script = THREE_LINES.format(uri=f"sqlite:///{output}/mlflow.db", run=run, **paths)
    (tmp_path / "empty").mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "kept.py").rename(tmp_path / "hand_made_networks.py")
    with torch.no_grad():
        expected_BK = load(own, CLASSES, 1)(torch.from_numpy(images_BCHW)).numpy()
    assert expected_BK.shape == (5, CLASSES)
    whole_BK, in_parts_BK, by_pyfunc_BK = np.load(tmp_path / "logits.npy")
    np.testing.assert_array_equal(whole_BK, expected_BK)
    np.testing.assert_allclose(in_parts_BK, expected_BK, atol=1e-6)
    np.testing.assert_array_equal(by_pyfunc_BK, expected_BK)


def test_it_has_a_card_and_its_weights_once(experiment: HandMade, tmp_path: Path) -> None:
    blueprint_files = experiment.output / "by-hand" / "models" / "aligned"
    log(experiment)
    logged = Logged(experiment)
    folder = Path(logged.client.download_artifacts(logged.named("aligned").info.run_id, "model", str(tmp_path)))
    for file in ("model.safetensors", "card.json"):
        assert (folder / file).read_bytes() == (blueprint_files / file).read_bytes()
    with zipfile.ZipFile(folder / "data" / "model.pth") as opened:
        assert not [name for name in opened.namelist() if "/data/" in name]  # where torch keeps tensors


@pytest.mark.parametrize(
    ("which", "runs"), [("aligned", {"aligned"}), ("none", set()), ("all", {"aligned", "mild", "label_only"})]
)
def test_the_experiment_says_which_surrogates_become_models(experiment: HandMade, which: str, runs: set[str]) -> None:
    experiment.write(mlflow_models=which, variants={"mild": {"align": {"temperature": 2}}}, controls=["label_only"])
    log(experiment)
    assert with_models(experiment) == runs


def test_a_model_is_logged_once_and_more_of_them_later(experiment: HandMade) -> None:
    log(experiment)
    files = {file: file.stat().st_mtime_ns for file in experiment.output.rglob("model/*")}
    log(experiment, again=True)
    assert {file: file.stat().st_mtime_ns for file in experiment.output.rglob("model/*")} == files
    experiment.write(mlflow_models="all", variants={"mild": {"align": {"temperature": 2}}}, controls=["label_only"])
    log(experiment)  # not `again`: another setting is a reason to log
    assert with_models(experiment) == {"aligned", "mild", "label_only"}
