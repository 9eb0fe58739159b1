"""The networks that attacks are timed on: as the pipeline prepares them, and plain, as another package gets them.

This needs torch, timm and `align_core` alone, so that attacks can be timed on a machine that has nothing else. The real
CIFAR-10 weights and images are used where the machine has them, and random ones elsewhere: the amount of work is the
same.
"""

import argparse
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from align_core.attacks import Others
from align_core.folding import fold, foldable
from align_core.model_config import Precision
from align_core.models import Classifier
from align_core.weights import load_into, read_weights
from pipelines.recipes.cifar_models import resnet

REAL = Path(os.environ.get("WITNESS_CIFAR10", Path(__file__).parents[3] / "shared" / "data" / "cifar10"))
"""The folder of the real CIFAR-10 files; there may be none."""

WEIGHTS = {
    20: "akamaster_resnet20-12fca82f.th",
    32: "akamaster_resnet32-d509ac18.th",
    44: "akamaster_resnet44-014dd654.th",
    56: "akamaster_resnet56-4bfd9763.th",
}


@dataclass(frozen=True)
class Kind:
    """A network, the size of its images, and the images of a batch on a CPU."""

    name: str
    make: Callable[[], nn.Module]
    side: int
    classes: int
    batch: int


def _cifar_resnet() -> nn.Module:
    net = resnet(20)
    if REAL.is_dir():
        load_into(net, read_weights(REAL / WEIGHTS[20]), WEIGHTS[20])
    return net


def _half_mobilenet() -> nn.Module:
    """MobileNetV1 of half the width (Howard et al. 2017, table 1), which timm does not name."""
    widths = (16, 32, 64, 64, 128, 128, *(256,) * 6, 512, 512)
    strides = (1, 2, 1, 2, 1, 2, *(1,) * 5, 2, 1)
    layers = [_convolution(3, widths[0], 3, 2)]
    for before, after, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [_convolution(before, before, 3, stride, before), _convolution(before, after, 1, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1000))


def _convolution(before: int, after: int, side: int, stride: int, groups: int = 1) -> nn.Module:
    convolution = nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


KINDS = {
    "resnet20": Kind("CIFAR ResNet-20", _cifar_resnet, 32, 10, 100),
    "resnet18": Kind("ResNet-18 at 224", lambda: timm.create_model("resnet18"), 224, 1000, 16),
    "resnet50": Kind("ResNet-50 at 224", lambda: timm.create_model("resnet50"), 224, 1000, 16),
    "mobilenetv1": Kind("MobileNetV1-0.5 at 224", _half_mobilenet, 224, 1000, 32),
    "mobilenetv2": Kind("MobileNetV2 at 224", lambda: timm.create_model("mobilenetv2_100"), 224, 1000, 16),
    "vit_tiny": Kind("ViT-tiny at 224", lambda: timm.create_model("vit_tiny_patch16_224"), 224, 1000, 16),
}


def flags_of_device(description: str, network: str) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark that a GPU machine can run: device, network and precisions.

    Args:
        network: the default, a key of `networks.KINDS`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", choices=KINDS, default=network)
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], nargs="+", default=["fp32"])
    return parser


@dataclass(frozen=True)
class Subject:
    """A network on a device, with images to attack.

    Args:
        ours: as the pipeline prepares it: channels last, BatchNorm folded where it pays, parameters frozen.
        plain: as a user of another package has it: in eval mode, and otherwise as it was built.
        images_BCHW, labels_B, ids: a batch, uint8, on the device.
        others: images to mix in, of the same size.
    """

    ours: Classifier
    plain: Classifier
    images_BCHW: Tensor
    labels_B: Tensor
    ids: list[str]
    others: Others


def subject(kind: Kind, batch: int, device: str, precision: Precision = "fp32") -> Subject:
    """Builds a network, with the same weights twice, and reads or draws its images."""
    torch.manual_seed(0)
    plain = Classifier(kind.make(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval().to(device)
    plain.precision = precision
    ours = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    ours = fold(ours, foldable(ours.net).pairs)
    images, labels = _images(kind)
    rows = np.arange(batch) % len(images)
    on_device = [torch.from_numpy(own).to(device) for own in (images[rows], labels[rows], images, labels)]
    ids = [f"{row:05d}" for row in range(batch)]
    return Subject(ours, plain, on_device[0], on_device[1], ids, Others(on_device[2], on_device[3]))


def _images(kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, C, H, W], uint8, and their labels: those of CIFAR-10 where they are there, else random ones."""
    if kind.side == 32 and REAL.is_dir():
        with np.load(REAL / "test_lossless_1000.npz") as file:
            return np.ascontiguousarray(file["images"].transpose(0, 3, 1, 2)), file["labels"].astype(np.int64)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 3, kind.side, kind.side), dtype=np.uint8)
    return images, rng.integers(0, kind.classes, 200)
