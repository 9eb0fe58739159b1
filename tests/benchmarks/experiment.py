"""The experiment that the benchmarks measure: CIFAR ResNets, with real weights and images where there are any."""

import time
from pathlib import Path

import numpy as np
import torch
import yaml

from pipelines.compute.cluster import connected, worker_of
from pipelines.progress import Progress
from pipelines.recipes.cifar_models import resnet
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.craft import craft_all
from pipelines.stages.evaluate import evaluate_all
from tests.benchmarks.networks import REAL, WEIGHTS

IMAGES = 1_000


def data_folder(scratch: Path) -> Path:
    """The folder of the real files; if there is none, `scratch`, filled with random files of the same shapes."""
    if REAL.is_dir():
        return REAL
    rng = np.random.default_rng(0)
    for name in ("train_lossless_4000.npz", "test_lossless_1000.npz"):
        images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
        np.savez(scratch / name, images=images, labels=rng.integers(0, 10, IMAGES))
    for depth, name in WEIGHTS.items():
        torch.manual_seed(depth)
        state = resnet(depth).state_dict()
        # All predict class 0, or no image would be classified correctly by all, and a sweep had nothing to attack.
        state["linear.bias"][0] = 10
        torch.save(state, scratch / name)
    return scratch


def write_experiment(folder: Path, data: Path, name: str, images: int, workers: int, threads: int) -> Path:
    """Writes an experiment file with a short alignment, PGD-10 and two targets; returns its path."""
    models = {
        f"resnet{depth}": {
            "factory": "pipelines.recipes.cifar_models:resnet",
            "args": {"depth": depth},
            "weights": str(data / file),
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "family": "resnet",
        }
        for depth, file in WEIGHTS.items()
    }
    content = {
        "name": name,
        "output": str(folder / "runs"),
        "data": {
            "classes": 10,
            "image_size": 32,
            "train": {"kind": "npz", "path": str(data / "train_lossless_4000.npz"), "limit": 128},
            "test": {"kind": "npz", "path": str(data / "test_lossless_1000.npz"), "limit": images},
        },
        "models": models,
        "source": "resnet20",
        "witnesses": ["resnet32"],
        "targets": ["resnet44", "resnet56"],
        "controls": [],
        "attacks": {"pgd": {"method": "pgd", "eps": "2/255", "step": "0.5/255", "steps": 10}},
        "compute": {"workers": workers, "threads": threads, "accelerator": "cpu"},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def seconds_of(file: Path, *overrides: str) -> float:
    """Seconds that crafting and evaluation take, without the start of the cluster and without the alignment."""
    request = Request(file, overrides, quiet=True)
    experiment = request.experiment()
    with connected(None, experiment, print):
        run(request, ["align"])
        blueprint = open_blueprint(request)
        workers = {stage: worker_of(experiment.compute, stage) for stage in ("craft", "evaluate")}
        start = time.perf_counter()
        craft_all(blueprint, workers["craft"], Progress(quiet=True))
        evaluate_all(blueprint, workers["evaluate"], Progress(quiet=True))
        return time.perf_counter() - start
