"""A tiny experiment on the embedded digits: networks of a few thousand weights, mostly from files, 60 test images."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
import yaml
from empty_store import put_empty_store
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.model_config import ModelConfig
from align_core.models import Classifier, load
from pipelines.recipes import digit_models
from pipelines.run.command import RunResult
from pipelines.run.request import Request

CNN = "pipelines.recipes.digit_models:cnn"
MLP = "pipelines.recipes.digit_models:mlp"
SMALL = {"layers": 2, "width": 8}
WIDE = {"layers": 3, "width": 6}
NETWORKS = {"cnn_a": SMALL, "cnn_b": SMALL, "cnn_c": SMALL, "cnn_d": SMALL, "wide": WIDE}
NAME = "digits"
IMAGE_SIZE = 16


def make_weights(folder: Path) -> None:
    """Saves networks that were trained for a second, on images that no experiment here uses, into `folder`."""
    torch.set_num_threads(1)  # on a busy machine, several threads would wait for each other
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    ids, labels = digits.listing()
    images_BCHW = torch.from_numpy(read_images(digits, ids[:600])) / 255
    labels_B = torch.from_numpy(labels[:600])
    for seed, (name, args) in enumerate(NETWORKS.items()):
        torch.manual_seed(seed)
        network = digit_models.cnn(**args)
        _train(network, images_BCHW, labels_B)
        save_file(network.state_dict(), folder / f"{name}.safetensors")


def _train(network: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(10):
        for rows in torch.randperm(len(labels_B)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(network(images_BCHW[rows]), labels_B[rows]).backward()
            optimizer.step()


def experiment(weights: Path, **changes: Any) -> dict[str, Any]:
    """The sections of an experiment file, with some of them changed.

    `weights` is the folder that `make_weights` filled. The model cnn_d has no role, so that tests can give it one.
    """

    def cnn(name: str) -> dict[str, Any]:
        return {
            "factory": CNN,
            "args": NETWORKS[name],
            "family": "cnn",
            "weights": str(weights / f"{name}.safetensors"),
        }

    content = {
        "name": NAME,
        "data": {
            "classes": 10,
            "image_size": IMAGE_SIZE,
            "train": {"kind": "digits", "take": [600, 856]},
            "test": {"kind": "digits", "take": [1200, 1400], "limit": 60},
        },
        "models": {
            **{name: cnn(name) for name in NETWORKS},
            "mlp": {"factory": MLP, "args": {"width": 32}, "family": "mlp", "train": {"epochs": 20, "lr": 5e-3}},
        },
        "source": "cnn_a",
        "witnesses": ["wide"],
        "targets": ["cnn_c", "mlp"],
        "align": {
            "epochs": 4,
            "batch_size": 64,
            "optimizer": {"name": "adamw", "lr": 2e-3},
            "augment": {"crop": "none", "flip": False},
        },
        "variants": {"warm": {"align": {"temperature": 16}}, "other": {"source": "cnn_b"}},
        "attacks": {
            "pgd": {"method": "pgd", "eps": "12/255", "step": "5/255", "steps": 3},
            "fgsm": {"method": "fgsm", "eps": "8/255"},
        },
        "compute": {"workers": 2, "chunk": 20},
    }
    return content | changes


def write_experiment(folder: Path, weights: Path, **changes: Any) -> Path:
    """Writes the experiment file into `folder`, where its output and tracking store will be too; returns its path."""
    content = experiment(weights, output=str(folder / "runs"), tracking=f"sqlite:///{folder}/mlflow.db")
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    put_empty_store(folder)
    return path


@dataclass(frozen=True)
class Finished:
    """A finished experiment, which no test changes: what continues from it works on a copy."""

    file: Path
    result: RunResult

    @property
    def folder(self) -> Path:
        """The folder of its results."""
        return Path(self.result.location)

    def copied(self, output: Path, *without: str, overrides: Sequence[str] = ()) -> tuple[Request, Path]:
        """Copies the results below `output`, without the files and folders that match the patterns `without`.

        Returns the request that continues from the copy, and the folder of the copy.
        """
        shutil.copytree(self.folder, output / NAME)
        for pattern in without:
            for path in list((output / NAME).glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Request(self.file, overrides, output=str(output)), output / NAME

    def network(self, name: str) -> Classifier:
        """Loads a network of the experiment by its name, without any code of the pipelines."""
        models = yaml.safe_load(self.file.read_text())["models"]
        folders = [self.folder / "models" / name, self.folder / "trained" / name]
        made = [ModelConfig(aligned=str(folder)) for folder in folders if folder.exists()]
        return load(made[0] if made else ModelConfig(**models[name]), 10, 1)


def leave_under_way(folder: Path, chunks: Sequence[int]) -> None:
    """Turns a finished table into what a run leaves that is killed after these chunks were crafted or evaluated."""
    (file,) = folder.iterdir()
    table = pq.ParquetFile(file)
    for chunk in chunks:
        pq.write_table(table.read_row_group(chunk), folder / f"{file.stem}-chunk-{chunk:06d}.parquet")
    file.unlink()


def read_table(folder: Path) -> pd.DataFrame:
    """Reads a finished table, which is the only file of its folder; images become arrays [C, H, W]."""
    (file,) = folder.iterdir()
    table = pq.read_table(file)
    frame = table.drop_columns(["image"] if "image" in table.column_names else []).to_pandas()
    if "image" in table.column_names:
        frame["image"] = list(table["image"].combine_chunks().to_numpy_ndarray())
    return frame


def assert_same_tables(one: Path, other: Path) -> None:
    """Asserts that every table below `one` is also below `other`, with the same content."""
    folders = {file.parent.relative_to(one) for file in one.rglob("*.parquet")}
    assert folders
    for folder in folders:
        (mine,), (theirs,) = (one / folder).iterdir(), (other / folder).iterdir()
        assert pq.read_table(mine).equals(pq.read_table(theirs)), folder
