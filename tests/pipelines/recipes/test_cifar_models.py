"""The CIFAR-10 factories rebuild published networks: weights load strictly and are as accurate as published."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from align_core.model_config import ModelConfig
from align_core.models import load
from pipelines.recipes import cifar_models

CIFAR10 = Path(os.environ.get("WITNESS_CIFAR10", Path(__file__).parents[3] / "../shared/data/cifar10"))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)

# Factory, arguments, file, normalisation, and how many of the 1,000 test images it classifies correctly (SOURCES.md).
PUBLISHED = [
    ("resnet", {"depth": 20}, "akamaster_resnet20-12fca82f.th", IMAGENET, 915),
    ("resnet", {"depth": 32}, "akamaster_resnet32-d509ac18.th", IMAGENET, 928),
    ("resnet", {"depth": 44}, "akamaster_resnet44-014dd654.th", IMAGENET, 933),
    ("resnet", {"depth": 56}, "akamaster_resnet56-4bfd9763.th", IMAGENET, 926),
    ("cnn_a", {}, "abc_cifar_cnn_a_adv.model", {"mean": CIFAR_MEAN, "std": (0.2023, 0.1994, 0.2010)}, 703),
    ("resnet_b", {"blocks": 2}, "abc_resnet2b.pth", {"mean": CIFAR_MEAN, "std": (0.225,) * 3}, 694),
    ("resnet_b", {"blocks": 4}, "abc_resnet4b.pth", {"mean": CIFAR_MEAN, "std": (0.225,) * 3}, 769),
]


@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no CIFAR-10 files in {CIFAR10}; $WITNESS_CIFAR10 names their folder")
@pytest.mark.parametrize(
    ("factory", "args", "file", "normalise", "right"), PUBLISHED, ids=[row[2] for row in PUBLISHED]
)
def test_published_weights_load_and_are_as_accurate_as_published(factory, args, file, normalise, right):
    config = ModelConfig(
        factory=f"pipelines.recipes.cifar_models:{factory}", args=args, weights=str(CIFAR10 / file), **normalise
    )
    model = load(config, classes=10, channels=3)
    with np.load(CIFAR10 / "test_lossless_1000.npz") as stored:
        images = torch.from_numpy(stored["images"]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(stored["labels"])
    with torch.no_grad():
        predicted = torch.cat([model(part / 255).argmax(dim=1) for part in images.split(200)])
    # Other hardware may decide a near-tie otherwise.
    assert (predicted == labels).sum() == pytest.approx(right, abs=1)


@pytest.mark.parametrize("depth", [2, 18, 21, -4])
def test_a_resnet_of_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 2 .* not {depth}"):
        cifar_models.resnet(depth)


def test_a_resnet_b_of_another_size_is_refused():
    with pytest.raises(ValueError, match="2 or 4 blocks, not 3"):
        cifar_models.resnet_b(3)
