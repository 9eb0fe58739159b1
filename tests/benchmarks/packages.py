"""Crafting against torchattack and torchattacks: the same method and settings, on the same weights, in float32.

Those packages get the network as a user has it, in eval mode; Witness prepares it as the pipeline does. Parameters keep
`requires_grad`, as they have it by default: torchattack then computes their gradients too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torchattack
import torchattacks
from torch import Tensor, nn

from align_core.attacks import AttackConfig, craft
from align_core.numerics import set_policy
from tests.benchmarks.clock import in_alternation, median_ratio, peak_mib
from tests.benchmarks.networks import KINDS, Kind, Subject, subject

_THREADS, _ROUNDS = 2, 3
_EPS = 8 / 255
_CPU = torch.device("cpu")

Attack = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A method of another package, and our settings that do the same.

    Args:
        of: makes the attack for a network, a number of steps and a number of classes.
        settings: ours, beside eps, step and steps.
        steps: as many as keep the shares of the first and the last step near those of the published ten.
    """

    of: Callable[[nn.Module, int, int], Attack]
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 10


def _theirs(name: str, **arguments: Any) -> Callable[[nn.Module, int, int], Attack]:
    """An attack of torchattack."""

    def made(net: nn.Module, steps: int, classes: int) -> Attack:
        own = {**arguments, "num_classes": classes} if name == "Admix" else arguments
        attack: Attack = getattr(torchattack, name)(net, device=_CPU, eps=_EPS, alpha=_EPS / steps, steps=steps, **own)
        return attack

    return made


def _others(name: str, **arguments: Any) -> Callable[[nn.Module, int, int], Attack]:
    """An attack of torchattacks."""

    def made(net: nn.Module, steps: int, classes: int) -> Attack:
        attack: Attack = getattr(torchattacks, name)(net, eps=_EPS, alpha=_EPS / steps, steps=steps, **arguments)
        return attack

    return made


def _samples(name: str, **settings: Any) -> dict[str, Any]:
    return {"samples": {"name": name, "count": 5, **settings}}


def _views(name: str, **settings: Any) -> dict[str, Any]:
    return {"views": [{"name": name, **settings}]}


CASES: dict[str, dict[str, Case]] = {
    "torchattack": {
        "pgd": Case(_theirs("PGD")),
        "mi": Case(_theirs("MIFGSM")),
        "ni": Case(_theirs("NIFGSM")),
        "di": Case(_theirs("DIFGSM"), _views("resize_pad", probability=1)),
        "ti": Case(_theirs("TIFGSM", kern_len=5), {"kernel": 5}),
        "sini": Case(_theirs("SINIFGSM", m=5), steps=2),
        "vmi": Case(_theirs("VMIFGSM", n=5), _samples("variance")),
        "admix": Case(_theirs("Admix"), steps=2),
        "gra": Case(_theirs("GRA", num_neighbors=5), _samples("relevance"), steps=2),
        "mig": Case(_theirs("MIG", s_factor=5), _samples("integrated"), steps=2),
        "bsr": Case(_theirs("BSR", num_scale=5), _views("block_shuffle", copies=5), steps=2),
        "decowa": Case(_theirs("DeCoWA", num_warping=5), _views("warp", copies=5), steps=2),
    },
    "torchattacks": {
        "ifgsm": Case(_others("BIM")),
        "mi": Case(_others("MIFGSM", decay=1.0)),
        "ni": Case(_others("NIFGSM")),
        "di": Case(_others("DIFGSM", decay=1.0)),
        "sini": Case(_others("SINIFGSM", m=5), steps=2),
        "vmi": Case(_others("VMIFGSM", N=5), _samples("variance")),
    },
}
"""Package -> method of Witness -> the same of the package."""

_ON_LARGE = ("mi", "di", "sini")
_LEAST = {  # how many times as fast: torchattack, torchattacks
    "resnet20": (1.8, 1.3),
    "resnet18": (1.8, 1.3),
    "mobilenetv2": (1.0, 1.0),
    "vit_tiny": (1.0, 1.0),
}


def measure() -> Iterator[str]:
    """All methods on CIFAR ResNet-20, and some on three networks at 224 pixels."""
    set_policy(_THREADS, "fp32")
    for network, limits in _LEAST.items():
        kind = KINDS[network]
        on = subject(kind, kind.batch, "cpu")
        for (package, cases), least in zip(CASES.items(), limits, strict=True):
            for method, case in cases.items():
                if kind.side == 32 or method in _ON_LARGE:
                    yield line(package, method, case, kind, on, least)


def line(package: str, method: str, case: Case, kind: Kind, on: Subject, least: float) -> str:
    """Times one method; where it costs more than twenty gradients an image, on fewer images than a batch has."""
    steps = case.steps if kind.side == 32 else min(case.steps, 3)
    attack = AttackConfig(method=method, eps=_EPS, step=_EPS / steps, steps=steps, **case.settings)
    images = min(kind.batch, max(kind.batch // 3, 20 * kind.batch // attack.gradients))
    images_BCHW, labels_B = on.images_BCHW[:images], on.labels_B[:images]
    ours = partial(craft, on.ours, images_BCHW, labels_B, on.ids[:images], attack, seed=0, others=on.others)
    theirs = partial(case.of(on.plain, steps, kind.classes), images_BCHW.to(torch.float32) / 255, labels_B)
    memory = [peak_mib(work, "cpu") for work in (ours, theirs)]
    own, around = in_alternation(ours, theirs, _ROUNDS, "cpu")
    ratios = sorted(other / one for one, other in zip(own, around, strict=True))
    ratio = median_ratio(around, own)
    missed = ", missed" if ratio < least else ""
    shown = " and ".join("?" if mib is None else f"{mib:,.0f}" for mib in memory)
    return (
        f"packages: {package}: {method}: {kind.name}, {images} images, {steps} steps, {_THREADS} threads: "
        f"{ratio:.2f} x as fast (at least {least:.1f}{missed}; from {ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"{images / min(own):.1f} images/s; at most {shown} MiB"
    )
