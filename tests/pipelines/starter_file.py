"""Images of two classes in the current folder, and `witness init` on them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli import main
from pipelines.experiment.config import Experiment, load_experiment

PER_CLASS = 12
MODELS = ["--source", "test_vit", "--witness", "test_resnet", "--target", "test_convnext"]


def write_images(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), side: int = 20, seed: int = 0) -> Path:
    """Random images, brighter from class to class, so that a network can tell the classes apart; not quite square."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(PER_CLASS):
            pixels = rng.integers(0, 128, (side, side + 4, 3), dtype=np.uint8) + min(127, 127 * number)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def write_npz(file: Path, labels: list[int], side: int = 20, compressed: bool = False) -> Path:
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(file, images=images, labels=np.array(labels))
    return file


def write_parquet(file: Path, labels: Sequence[Any], names: Sequence[str] = (), side: int = 20) -> Path:
    """Pictures with these labels, of which integers are positions in `names`, as Hugging Face's schemas have it."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(content, "PNG")
    rows = pa.table({"image": [content.getvalue()] * len(labels), "label": list(labels)})
    about = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    if pa.types.is_integer(rows.schema.field("label").type):
        rows = rows.replace_schema_metadata({"huggingface": json.dumps(about)})
    file.parent.mkdir(exist_ok=True)
    pq.write_table(rows, file)
    return file


def init(*flags: str, images: bool = True, models: bool = True) -> int:
    given = ["--train", "photos/train", "--test", "photos/test"] if images else []
    return main(["init", *flags, *given, *(MODELS if models else [])])


def made(*flags: str, images: bool = True, models: bool = True) -> Experiment:
    """The experiment in the file that these flags write."""
    assert init(*flags, images=images, models=models) == 0
    return load_experiment(Path("experiment.yaml"))


def refused(capsys: pytest.CaptureFixture[str], *flags: str, images: bool = True, models: bool = True) -> str:
    """The message with which these flags are refused; nothing is written."""
    before = sorted(Path().rglob("*"))
    assert init(*flags, images=images, models=models) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return captured.err.removeprefix("witness: ").strip()
