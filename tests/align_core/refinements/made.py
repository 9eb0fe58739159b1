"""Every refinement, alignment loss and further part as settings, and small networks to make surrogates of."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.losses import LOSSES
from align_core.refinements import REFINEMENTS

ON_LABELS: dict[str, Any] = {"weight": 0.0, "label_weight": 1.0}

CASES: dict[str, Mapping[str, Any]] = {
    **{name: own.settings for name, own in REFINEMENTS.items()},
    **{f"loss {name}": {"loss": name} for name in LOSSES},
    "loss pkt": {"loss": {"name": "pkt", "weight": 3000}},  # which is about 1 / B of the others
    **{f"loss kl and {name}": {"loss": ["kl", {"name": name, "weight": 0.5}]} for name in ("hint", "rkd")},
    "inputs random": {"inputs": "random"},
    "inputs pgd": {"inputs": {"name": "pgd", "steps": 2}},
    "mix mixup": {**ON_LABELS, "mix": "mixup"},
    "keep ema": {"keep": {"name": "ema", "decay": 0.8}},
    "over witnesses max": {"over_witnesses": "max"},
    "over witnesses weighed": {"over_witnesses": [1, 3]},
    "layer decay": {"loss": "hint", "optimizer": {"layer_decay": 0.5, "warmup": 0.5}},
    "freeze": {"freeze": ["0.*", "1.*"]},
    "sam with terms": {"update": "sam", "terms": ["input_gradient", "score_matching"], "label_weight": 0.5},
}


def config_of(name: str, **more: Any) -> AlignConfig:
    """The settings of a case, at a learning rate that shows in a few dozen steps where it gives none."""
    settings = {**CASES[name], **more}
    settings["optimizer"] = OptimizerConfig(**{"lr": 0.02, **settings.get("optimizer", {})})
    return AlignConfig(**settings)


def pooled(seed: int, width: int = 8) -> nn.Sequential:
    """A network for digits that averages the places of its last feature map, with BatchNorm and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.1),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )


@cache
def digits() -> tuple[Tensor, Tensor]:
    """The first 960 digits, float pixels [N, 1, 8, 8], and their labels."""
    images = open_image_set(ImageSetConfig(kind="digits"), 8)
    ids, labels = images.listing()
    return torch.from_numpy(read_images(images, ids[:960])) / 255, torch.from_numpy(labels[:960])


def batch(step: int, size: int = 32) -> tuple[Tensor, Tensor]:
    images, labels = digits()
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(step))[:size]
    return images[chosen], labels[chosen]


@cache
def trained(seed: int, width: int, steps: int) -> dict[str, Tensor]:
    """The weights of a network that was trained on labels for some steps."""
    net = pooled(seed, width)
    config = AlignConfig(**ON_LABELS, optimizer=OptimizerConfig(name="adamw", lr=0.02))
    alignment = Alignment(net, [], config, total_steps=steps, seed=seed)
    for step in range(steps):
        alignment.step(*batch(step))
    return net.state_dict()


def network(seed: int, width: int = 8, steps: int = 60) -> nn.Sequential:
    net = pooled(seed, width)
    net.load_state_dict(trained(seed, width, steps))
    return net


def begun(config: AlignConfig, source: nn.Module, total_steps: int, steps_per_epoch: int, seed: int = 3) -> Alignment:
    """An alignment to two witnesses that are narrower and wider than the source."""
    witnesses = [network(1, width=4), network(2, width=10)]
    return Alignment(source, witnesses, config, total_steps, seed, steps_per_epoch=steps_per_epoch, shape=(1, 8, 8))


def kept_by(alignment: Alignment) -> list[dict[str, Tensor]]:
    """Copies of the networks that are kept."""
    networks = alignment.networks(lambda: (batch(step)[0] for step in range(3)))
    return [{name: value.clone() for name, value in own.items()} for own in networks]
