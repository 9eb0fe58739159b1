"""How busy a device is kept: one that sleeps while others decode, read and write, through Parquet and an object store.

The device is simulated by an actor as a GPU has one. Crafting sleeps 0.3 s a chunk of 100 images of 224 pixels, and
evaluation 0.04 s a chunk and target; everything around it is what a run does.
"""

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
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
from pipelines.compute.cluster import Worker, connected
from pipelines.compute.ray_data import run_pipeline
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import craft, evaluate
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.evaluations import in_turns
from pipelines.stages.payload import network_loader, test_images
from tests.pipelines.s3_server import s3_server

CRAFTING_S, PREDICTING_S = 0.3, 0.04
CHUNKS, CHUNK, SIDE, TARGETS = 24, 100, 224, 10
LIMIT = 0.9

_NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
"""


def measure() -> Iterator[str]:
    """Measures crafting and evaluation with one device, on a local disk and with an S3-compatible server (moto)."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_images(folder / "images.npz")
        with s3_server(folder / "log.txt") as server:
            for where, output in (("a disk", str(folder / "runs")), ("moto's S3", server.uri("runs"))):
                request = Request(_write_experiment(folder, output), quiet=True)
                blueprint = open_blueprint(request)
                with connected(None, request.experiment(), print):
                    yield _line("crafting", where, _crafting(blueprint))
                    yield _line("evaluation", where, _evaluation(blueprint))


def _line(what: str, where: str, used: Sequence[tuple[float, float]]) -> str:
    """The share of the time, from the first use of the device to the end of the last, in which it was used."""
    whole = max(end for _, end in used) - min(begin for begin, _ in used)
    share = sum(end - begin for begin, end in used) / whole
    return (
        f"busy: {what} of {CHUNKS} chunks of {CHUNK} images of {SIDE} pixels with {where}: the device is busy "
        f"{100 * share:.0f} % of the time (at least {100 * LIMIT:.0f})"
    )


_USED = threading.local()
"""When this thread began and ended to use the device for its chunk."""


class _Crafter(craft.Crafter):
    """Crafts on the simulated device: every pixel is moved by two levels."""

    def __init__(self, job: Any) -> None:
        self.job, self._kind = job, "simulated"
        self.networks: Any = _Networks(0.0)

    def __call__(self, item: craft.CraftItem) -> Any:
        return {**super().__call__(item), "used": json.dumps(_USED.spans)}

    def _craft(self, network: nn.Module, seed: int, attack: str, chunk: int, clean: Pixels) -> tuple[pa.Table, Crafted]:
        images_BCHW = torch.from_numpy(np.array(clean))
        _USED.spans = [_sleep(CRAFTING_S)]
        made_BCHW = images_BCHW ^ 2
        ids, labels = self.job.images.ids_of(chunk), self.job.images.labels_of(chunk)
        pixels, zeros = pa.FixedShapeTensorArray.from_numpy_ndarray(made_BCHW.numpy()), np.zeros(len(ids), np.float32)
        columns = {"image_id": ids, "label": pa.array(labels, pa.int64()), "image": pixels, "linf": zeros, "l2": zeros}
        return pa.table(columns), Crafted(made_BCHW, torch.zeros(len(ids), dtype=torch.bool), len(ids), 10)


class _Evaluator(evaluate.Evaluator):
    """Predicts on the simulated device."""

    def __init__(self, job: Any) -> None:
        self.job = replace(job, device="cpu")
        self.networks: Any = _Networks(PREDICTING_S)

    def __call__(self, item: evaluate.EvaluateItem) -> Any:
        _USED.spans = []
        return {**super().__call__(item), "used": json.dumps(_USED.spans)}


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


_WORKER = Worker("cuda", 1, 1, 0, {}, 1)


def _crafting(blueprint: Blueprint) -> list[tuple[float, float]]:
    job = craft.craft_job(blueprint, "cuda", 1, 60.0)  # so that it takes actors, and decoders beside them
    items = [craft.CraftItem(surrogate="source", attack="pgd", chunk=chunk) for chunk in range(CHUNKS)]
    rows: Iterator[Any] = run_pipeline(items, craft._decode, job, _Crafter, _WORKER, 1)
    return [span for row in rows for span in json.loads(row["used"])]


def _evaluation(blueprint: Blueprint) -> list[tuple[float, float]]:
    turns = in_turns(blueprint.evaluations)
    (turn,) = (one for one in turns if one.images is not None and "/source/" in one.images.folder)
    positions = [number for number, own in enumerate(turn.predictions) if "target" in own.members[0]]
    job = evaluate.EvaluateJob(
        blueprint.store, network_loader(blueprint), test_images(blueprint), [turn], 0, "cuda", 1, TARGETS, 60.0
    )  # fmt: skip
    items = [evaluate.EvaluateItem(number=0, chunk=chunk, lacking=str(positions)) for chunk in range(CHUNKS)]
    rows: Iterator[Any] = run_pipeline(items, evaluate._read, job, _Evaluator, _WORKER, 1)
    return [span for row in rows for span in json.loads(row["used"])]


def _write_images(file: Path) -> None:
    """Smooth random images with a little noise, about as large in Parquet as photographs are."""
    rng = np.random.default_rng(0)
    count = CHUNKS * CHUNK + 8
    coarse = rng.integers(0, 240, (count, SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
    images = coarse.repeat(16, axis=1).repeat(16, axis=2) + rng.integers(0, 16, (count, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(count) % 10)


def _write_experiment(folder: Path, output: str) -> Path:
    (folder / "sleeping_nets.py").write_text(_NETS)
    names = ["near", "seer", *(f"target{number}" for number in range(TARGETS))]
    for number, name in enumerate(names):
        torch.manual_seed(number)
        linear = nn.Linear(48, 10)
        save_file({"2.weight": linear.weight.detach(), "2.bias": linear.bias.detach()}, folder / f"{name}.safetensors")
    sets = {"kind": "npz", "path": "images.npz"}
    content = {
        "name": "busy",
        "output": output,
        "tracking": f"sqlite:///{folder}/mlflow.db",
        "data": {
            "classes": 10,
            "image_size": SIDE,
            "train": {**sets, "take": [0, 8]},
            "test": {**sets, "take": [8, 8 + CHUNKS * CHUNK]},
        },
        "models": {name: {"factory": "sleeping_nets:net", "weights": f"{name}.safetensors"} for name in names},
        "source": "near",
        "witnesses": ["seer"],
        "targets": names[2:],
        "controls": [],
        "attacks": {"pgd": {"method": "pgd", "eps": "4/255", "steps": 10}},
        "compute": {"chunk": CHUNK, "workers": 1},
    }
    file = folder / "busy.yaml"
    file.write_text(yaml.safe_dump(content))
    return file
