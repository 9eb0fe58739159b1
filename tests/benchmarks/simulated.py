"""A device that sleeps in place of computing, and networks that take no time: all else is what a run does."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from align_core.attacks import Crafted
from align_core.images.decoding import Pixels
from pipelines.compute.cluster import Worker
from pipelines.compute.sent import sent
from pipelines.stages import craft, evaluate

CRAFTING_S, PREDICTING_S = 0.3, 0.04
"""Of a chunk, and of a chunk and target."""
WORKER = Worker("cuda", 1, 1, 0, {}, 1)
"""An actor, as a GPU has one, without a GPU."""

_NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
"""
_USED = threading.local()
"""When this thread began and ended to use the device for its chunk."""


def _facts() -> dict[str, Any]:
    """When this thread used the device for its chunk, and what CPU seconds this process has used up to now."""
    return {"used": json.dumps(_USED.spans), "cpu": time.process_time()}


class Crafter(craft.Crafter):
    """Crafts on the simulated device: every pixel is moved by two levels. Its rows have `_facts`."""

    seconds = CRAFTING_S

    def __init__(self, job: Any) -> None:
        self.job, self._kind = job, "simulated"
        self.networks: Any = _Networks(0.0)

    def __call__(self, item: craft.CraftItem) -> Any:
        """Crafts one chunk."""
        return {**super().__call__(item), **_facts()}

    def _craft(self, network: nn.Module, seed: int, attack: str, chunk: int, clean: Pixels) -> tuple[pa.Table, Crafted]:
        images_BCHW = torch.from_numpy(np.array(clean))
        _USED.spans = [_sleep(self.seconds)]
        made_BCHW = images_BCHW ^ 2
        ids, labels = self.job.images.ids_of(chunk), self.job.images.labels_of(chunk)
        pixels, zeros = pa.FixedShapeTensorArray.from_numpy_ndarray(made_BCHW.numpy()), np.zeros(len(ids), np.float32)
        columns = {"image_id": ids, "label": pa.array(labels, pa.int64()), "image": pixels}
        columns |= {name: zeros for name in ("linf", "l2", "ssim")}
        columns["pass_rows"] = pa.array([self.job.pass_rows] * len(ids), pa.int32())
        return pa.table(columns), Crafted(made_BCHW, torch.zeros(len(ids), dtype=torch.bool), self.job.pass_rows, 10)


class Evaluator(evaluate.Evaluator):
    """Predicts on the simulated device. Its rows have `_facts`."""

    seconds = PREDICTING_S

    def __init__(self, job: Any) -> None:
        self.job = replace(job, device="cpu")
        self.networks: Any = _Networks(self.seconds)

    def __call__(self, item: evaluate.EvaluateItem) -> Any:
        """Predicts on one chunk. A device would turn the pixels into floats itself: here those of a corner are."""
        _USED.spans = []
        corner_BCHW = sent(item["images"], "cpu").numpy()[..., :1, :1]
        return {**super().__call__({**item, "images": corner_BCHW}), **_facts()}


class _Networks:
    """Networks of which each sleeps, and predicts class 0."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def mean_of(self, *_: Any) -> nn.Module:
        """Any of them."""
        return _Sleeping(self._seconds)


class _Sleeping(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def forward(self, images_BCHW: Tensor, ids: Sequence[str]) -> Tensor:
        _USED.spans.append(_sleep(self._seconds))
        return torch.zeros(len(images_BCHW), 10)


def _sleep(seconds: float) -> tuple[float, float]:
    """Sleeps, and returns from when until when."""
    began = time.time()
    time.sleep(seconds)
    return began, time.time()


def write_networks(folder: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Writes small networks of random weights, and returns them as the experiment file names them."""
    (folder / "sleeping_nets.py").write_text(_NETS)
    for number, name in enumerate(names):
        torch.manual_seed(number)
        linear = nn.Linear(48, 10)
        save_file({"2.weight": linear.weight.detach(), "2.bias": linear.bias.detach()}, folder / f"{name}.safetensors")
    return {name: {"factory": "sleeping_nets:net", "weights": f"{name}.safetensors"} for name in names}


def write_images(file: Path, count: int, side: int) -> None:
    """Smooth random images with a little noise, about as large in Parquet as photographs are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 240, (count, side // 16, side // 16, 3), dtype=np.uint8)
    images = coarse.repeat(16, axis=1).repeat(16, axis=2) + rng.integers(0, 16, (count, side, side, 3), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(count) % 10)


def write_experiment(folder: Path, output: str, images: int, side: int, targets: int, **changes: Any) -> Path:
    """Writes an experiment file, with all that it names: so many test images and targets; returns its path.

    Args:
        changes: further sections, or others. `models` are names beside those of source, witness and targets.
    """
    write_images(folder / "images.npz", images + 8, side)
    names, sets = [f"target{number}" for number in range(targets)], {"kind": "npz", "path": "images.npz"}
    content: dict[str, Any] = {
        "name": "simulated",
        "output": output,
        "tracking": f"sqlite:///{folder}/mlflow.db",
        "data": {
            "classes": 10,
            "image_size": side,
            "train": {**sets, "take": [0, 8]},
            "test": {**sets, "take": [8, 8 + images]},
        },
        "source": "near",
        "witnesses": ["seer"],
        "targets": names,
        **changes,
        "models": write_networks(folder, ["near", "seer", *changes.get("models", []), *names]),
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(content))
    return file
