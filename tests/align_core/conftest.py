"""Networks for tests of attacks, a random one and a published one, and a folder for weights that torch caches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from attack_setting import Setting, random_images
from torch import nn

from align_core.model_config import ModelConfig
from align_core.models import load


@pytest.fixture(scope="module")
def small() -> Setting:
    """A random convolutional net with BatchNorm and dropout, and noise as images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(16 * 10 * 10, 10),
        )
    return Setting(net.eval(), random_images(8, 3, 20, 20), torch.arange(8))


@pytest.fixture(scope="module")
def resnet20(cifar10: Path) -> Setting:
    """A published CIFAR-10 network, and eight test images that it classifies correctly with moderate confidence.

    Where the label's probability rounds to 1 in float32, the gradient of the cross-entropy is rounding noise, and a
    test would compare kinds of CPU instead of attacks.
    """
    config = ModelConfig(
        factory="pipelines.recipes.cifar_models:resnet",
        args={"depth": 20},
        weights=str(cifar10 / "akamaster_resnet20-12fca82f.th"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    net = load(config, classes=10, channels=3)
    with np.load(cifar10 / "test_lossless_1000.npz") as stored:
        images = torch.from_numpy(stored["images"][:100]).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(stored["labels"][:100])
    with torch.no_grad():
        confidence = net(images / 255).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    chosen = ((confidence > 0.5) & (confidence < 0.9999)).nonzero()[:8, 0]
    return Setting(net, images[chosen], labels[chosen])


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch looks for the published weights before it downloads them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder
