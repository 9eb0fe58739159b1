"""`witness evaluate --clean`: accuracy of whatever is there on clean images, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from digits_experiment import IMAGE_SIZE, Finished, write_experiment
from statsmodels.stats.proportion import proportion_confint

from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.model_config import ModelConfig
from align_core.models import load
from pipelines.cli import main

ENSEMBLE = ("cnn_a", "wide")


def right_of(file: Path, names: tuple[str, ...]) -> int:
    """How many of the 60 test images the mean of some networks' logits gets right, without any code of a run."""
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    ids, labels = digits.listing()
    images = torch.from_numpy(read_images(digits, ids[1200:1260])) / 255
    models = yaml.safe_load(file.read_text())["models"]
    with torch.no_grad():
        logits = [load(ModelConfig(**models[name]), 10, 1)(images) for name in names]
    return int((torch.stack(logits).mean(0).argmax(1).numpy() == labels[1200:1260]).sum())


def clean(file: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main(["evaluate", str(file), "--clean", "--json", *flags]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_nothing_is_trained_and_what_is_there_is_measured(
    ray_cluster: None, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_experiment(tmp_path, weights, validation_targets=["cnn_d"])
    found = clean(file, capsys)
    folder = tmp_path / "runs/digits"
    assert found["location"] == str(folder) and found["classes"] == 10
    rows = {row["name"]: row for row in found["rows"]}
    roles = {name: row["role"] for name, row in rows.items()}
    assert roles == {
        "cnn_a": "source", "wide": "witness", "cnn_c": "target", "cnn_d": "validation target",
        "cnn_b": "model of a variant", "ensemble": "surrogate",
    }  # fmt: skip
    assert set(found["missing"]) == {"mlp", "aligned", "label_only", "aligned_ensemble", "warm", "other"}
    for name, row in rows.items():
        right = right_of(file, ENSEMBLE if name == "ensemble" else (name,))
        low, high = proportion_confint(right, 60, method="wilson")
        shown = (row["n"], row["accuracy"], row["low"], row["high"])
        assert shown == (60, *(pytest.approx(100 * share) for share in (right / 60, low, high)))
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == {"clean"}
    assert {path.name for path in (folder / "clean").iterdir()} == rows.keys()


def test_a_finished_run_has_these_tables_and_a_run_uses_those(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = finished.copied(tmp_path)
    tables = {path: path.read_bytes() for path in (folder / "clean").rglob("*.parquet")}
    found = clean(finished.file, capsys, "--output", str(tmp_path))
    assert found["missing"] == []
    assert {row["name"] for row in found["rows"]} == {path.parent.name for path in tables}
    assert {path: path.read_bytes() for path in (folder / "clean").rglob("*.parquet")} == tables
    assert main(["evaluate", str(finished.file), "--clean", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["network", "role"]
    (line,) = (line for line in lines if line.startswith("cnn_a "))
    (row,) = (row for row in found["rows"] if row["name"] == "cnn_a")
    assert line.split() == [
        "cnn_a", "source", f"{row['accuracy']:.1f}", f"{row['low']:.1f}", "to", f"{row['high']:.1f}", "60",
    ]  # fmt: skip
    assert lines[-1] == "10 classes: guessing is right in 10 %"
