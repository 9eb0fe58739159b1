"""What looks wrong with images and models is said by every command, before anything is computed with them."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from hand_made import CLASSES, HandMade, hand_made
from safetensors.torch import load_file, save_file
from sweeping import trial

from pipelines.cli import main
from pipelines.progress import Progress
from pipelines.stages.notes import say_notes
from pipelines.sweep.record import record_path, trial_fingerprint, write_record
from pipelines.sweep.study import Options, Study

SAID = (
    "data.train: limit 2 keeps 2 of 3 classes",
    "8 px images are resized to 160 for stranger",
    "data.test: near classifies 0 of 12 images correctly, and would classify 12 correctly if every label were one",
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A finished experiment whose source has learnt other labels, with a sweep of one trial, which failed."""
    folder = tmp_path_factory.mktemp("notes")
    made = hand_made(folder)
    with np.load(folder / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    images[:, 0, 0, 0] = 100 * labels
    np.savez(folder / "images.npz", images=images, labels=labels)
    np.savez(folder / "more.npz", images=255 - images[:6], labels=labels[:6])
    state = load_file(folder / "near.safetensors")
    read_pixel = torch.zeros_like(state["1.weight"])
    read_pixel[0, 0] = 255 / 100
    # Of the label x in the pixel, logit k is 2 (k + 1) x - (k + 1)^2, modulo the classes: highest where k is x - 1.
    state |= {"1.weight": read_pixel, "1.bias": torch.zeros(2), "2.bias": torch.tensor([-1.0, -4.0, 0.0])}
    state["2.weight"] = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 0.0]])
    save_file(state, folder / "near.safetensors")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1)
    save_file(net.state_dict(), folder / "resnet.safetensors")
    content = made.content()
    data = content["data"] | {"validation": {"kind": "npz", "path": "more.npz"}}
    data["train"]["limit"] = 2
    models = content["models"] | {"stranger": {"timm": "test_resnet", "weights": "resnet.safetensors"}}
    made.write(data=data, models=models, targets=["twin", "stranger"], validation_targets=["cousin"])
    blueprint = made.finish()
    table = blueprint.clean_predictions("cousin", ("cousin",)).table
    test = blueprint.inspected.manifests["test"]
    rows = {"image_id": np.array(test.ids), "label": test.labels, "prediction": test.labels}
    table.write_chunk(blueprint.store, 0, pa.table(rows))
    table.finish(blueprint.store, blueprint.rows)
    study = Study(blueprint, Options(space="temperature", samples=1))
    failed = trial(status="failed", reason="by hand")
    identities = {name: blueprint.networks[name].identity for name in blueprint.experiment.witnesses}
    own = trial_fingerprint(study.entry, study.inputs, identities, failed.settings)
    write_record(blueprint.store, record_path(study.folder, own), failed)
    ended = {"fingerprint": study.fingerprint, "trials": [own]}
    blueprint.store.write_json(f"{study.folder}/sweep.json", ended)
    return made


COMMANDS = {
    "craft": (["craft"], 0, "everything is there already"),
    "tune": (["tune", "--space", "temperature", "--samples", "1"], 1, "every trial is there already"),
    "clean": (["evaluate", "--clean"], 0, "3 classes: guessing is right"),
    "plan": (["plan"], 0, "align     every network is made"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_it(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (name, *flags), code, done = COMMANDS[command]
    assert main([name, str(experiment.file), *flags]) == code
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert done in said
    for line in SAID:
        assert said.count(line) == 1, (line, said)


def test_the_log_names_every_duplicate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = hand_made(tmp_path)
    np.savez(tmp_path / "same.npz", images=np.zeros((31, 8, 8), np.uint8), labels=np.zeros(31, np.int64))
    data = made.content()["data"]
    made.write(data=data | {"train": {"kind": "npz", "path": "same.npz"}})
    blueprint, progress = made.blueprint(), Progress(quiet=True)
    with progress.logged(blueprint.store):
        say_notes(blueprint, progress)
    (file,) = Path(blueprint.store.path("logs")).iterdir()
    log, said = file.read_text(), capsys.readouterr().err
    for number in range(1, 31):
        line = f"data.train: {number:05} is 00000"
        assert f"{line}\n" in log and f"{line}\n" not in said
    assert "30 images are in the set already" in said and "and 10 more" in said
