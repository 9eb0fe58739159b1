"""The time of crafting over that of its bare forward and backward passes, which no implementation can avoid."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional as F

from align_core.attacks import AttackConfig, craft
from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.model_config import ModelConfig
from align_core.models import Classifier, load
from pipelines.compute.loading import on_device
from tests.benchmarks.experiment import WEIGHTS, data_folder

_BATCH, _STEPS, _ROUNDS = 100, 10, 7


def measure() -> Iterator[str]:
    """Measures PGD-10 on a CIFAR ResNet-20 with a batch of 100, over ten bare input gradients of the same shape."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        data = data_folder(Path(scratch))
        config = ModelConfig(
            factory="pipelines.recipes.cifar_models:resnet",
            args={"depth": 20},
            weights=str(data / WEIGHTS[20]),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        image_set = open_image_set(ImageSetConfig(kind="npz", path=str(data / "test_lossless_1000.npz")), 32)
        ids, labels = image_set.listing()
        images_BCHW = torch.from_numpy(read_images(image_set, ids[:_BATCH]))
        surrogate = on_device(load(config, 10, 3), device)
    images_BCHW, labels_B = images_BCHW.to(device), torch.from_numpy(labels[:_BATCH]).to(device)
    attack = AttackConfig(method="pgd", eps=2 / 255, step=0.5 / 255, steps=_STEPS)

    def crafting() -> None:
        craft(surrogate, images_BCHW, labels_B, ids[:_BATCH], attack, seed=0)

    def bare() -> None:
        _bare_gradients(surrogate, images_BCHW, labels_B)

    crafting(), bare()
    pairs = [(_seconds(crafting, device), _seconds(bare, device)) for _ in range(_ROUNDS)]
    ratio = statistics.median(ours / limit for ours, limit in pairs)
    rate = _BATCH / statistics.median(ours for ours, _ in pairs)
    yield (
        f"crafting: PGD-{_STEPS}, CIFAR ResNet-20, batch {_BATCH}, {device}, 1 thread: {ratio:.3f} x the bare forward-"
        f"backward loop (limit 1.05; median of {_ROUNDS}); {rate:.1f} images/s"
    )


def _bare_gradients(surrogate: Classifier, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
    pixels_BCHW = images_BCHW.to(torch.float32) / 255
    for _ in range(_STEPS):
        pixels_BCHW.requires_grad_()
        torch.autograd.grad(F.cross_entropy(surrogate(pixels_BCHW), labels_B, reduction="sum"), pixels_BCHW)
        pixels_BCHW = pixels_BCHW.detach()


def _seconds(work: object, device: str) -> float:
    assert callable(work)
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
