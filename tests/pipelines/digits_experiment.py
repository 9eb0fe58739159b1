"""A tiny experiment on the embedded digits: networks of a few thousand weights, mostly from files, 60 test images."""

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from align_core.data import ImageSetConfig, open_image_set, read_images
from pipelines.recipes import digit_models

CNN = "pipelines.recipes.digit_models:cnn"
MLP = "pipelines.recipes.digit_models:mlp"
SMALL = {"layers": 2, "width": 8}
WIDE = {"layers": 3, "width": 6}
NETWORKS = {"cnn_a": SMALL, "cnn_b": SMALL, "wide": WIDE, "cnn_c": SMALL}
IMAGE_SIZE = 16


def make_weights(folder: Path) -> None:
    """Networks that were trained for a moment on other images than any experiment here uses."""
    torch.set_num_threads(1)  # more would wait for each other on a busy machine
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
    for _ in range(6):
        for rows in torch.randperm(len(labels_B)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(network(images_BCHW[rows]), labels_B[rows]).backward()
            optimizer.step()


def experiment(weights: Path, **changes: Any) -> dict[str, Any]:
    """The content of an experiment file; `weights` is the folder of `make_weights`."""

    def cnn(name: str) -> dict[str, Any]:
        return {"factory": CNN, "args": NETWORKS[name], "family": "cnn", "weights": str(weights / f"{name}.safetensors")}

    return {
        "name": "digits",
        "data": {
            "classes": 10,
            "image_size": IMAGE_SIZE,
            "train": {"kind": "digits", "take": [600, 856]},
            "test": {"kind": "digits", "take": [1200, 1400], "limit": 60},
        },
        "models": {
            **{name: cnn(name) for name in NETWORKS},
            "mlp": {"factory": MLP, "args": {"width": 32}, "family": "mlp", "train": {"epochs": 8, "lr": 5e-3}},
        },
        "source": "cnn_a",
        "witnesses": ["wide"],
        "targets": ["cnn_c", "mlp"],
        "align": {"epochs": 2, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 2e-3}},
        "attacks": {
            "pgd": {"method": "pgd", "eps": "24/255", "step": "10/255", "steps": 3},
            "fgsm": {"method": "fgsm", "eps": "16/255"},
        },
        "compute": {"workers": 2, "chunk": 20},
    } | changes


def write_experiment(folder: Path, weights: Path, **changes: Any) -> Path:
    """The experiment file in `folder`, its output beside it."""
    content = {"output": str(folder / "runs"), "tracking": f"sqlite:///{folder}/mlflow.db"}
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump(content | experiment(weights, **changes), sort_keys=False))
    return path
