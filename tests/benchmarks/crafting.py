"""The time of every preset over that of its gradients in the bare forward-backward loop, which no attack can avoid.

    python -m tests.benchmarks.crafting --device cuda --network resnet18 --precision fp32 tf32 bf16

It runs from the folder of the repository and needs no installation of Witness: torch, timm, numpy, pillow, safetensors
and tqdm are enough. Real weights are not needed either.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from align_core.attacks import PASS_ROWS, PRESETS, AttackConfig, craft
from align_core.attacks.cost import copies_of, points_of
from align_core.model_config import Precision
from align_core.models import Classifier
from align_core.numerics import set_policy
from tests.benchmarks.clock import in_alternation, median_ratio, peak_mib, run_as_workers_do, seconds
from tests.benchmarks.networks import KINDS, Kind, Subject, flags_of_device, subject

_LEAST = 10  # gradients of an image
_BARE_PASSES = 2
_PARTS = ("pgd", "si", "vmi", "bsr", "sia")  # on the large network, where every preset would take half an hour


@dataclass(frozen=True)
class Work:
    """An attack, shortened, and how many images of the batch it is measured on."""

    attack: AttackConfig
    images: int

    @property
    def rows(self) -> int:
        """Forward and backward passes of single images."""
        return self.images * self.attack.gradients

    @property
    def limit(self) -> float | None:
        """The largest ratio to the bare loop; one step of one gradient has none, as it shares its start with nobody."""
        if self.attack.gradients < _LEAST:
            return None
        return 1.10 if self.attack.views or self.attack.rule else 1.05


def shortened(method: str, batch: int, device: str) -> Work:
    """A preset in as many steps as make ten gradients, and at least two, on images that fill ten passes of a batch.

    Views and samples stay as many as in the paper. Images are as many as are attacked at once, or several times that.
    """
    eps = 0.5 if PRESETS[method].settings.get("norm") == "l2" else 8 / 255
    attack = AttackConfig(method=method, eps=eps)
    if PRESETS[method].steps > 1:
        of_steps = (AttackConfig(method=method, eps=eps, steps=steps) for steps in range(2, 100))
        attack = next(own for own in of_steps if own.gradients >= _LEAST)
        if attack.gradients > 1000:  # OPS, of which one step is enough
            attack = AttackConfig(method=method, eps=eps, steps=1)
    at_once = min(batch, max(1, PASS_ROWS[device] // (points_of(attack.rule) * copies_of(attack.views))))
    times = max(1, min(round(_LEAST * batch / attack.gradients / at_once), batch // at_once))
    return Work(attack, at_once * times)


def measure() -> Iterator[str]:
    """All presets on CIFAR ResNet-20, and one of each kind on ResNet-18, on one thread."""
    yield from lines(KINDS["resnet20"], tuple(PRESETS))
    yield from lines(KINDS["resnet18"], _PARTS)


def lines(
    kind: Kind,
    methods: tuple[str, ...],
    device: str = "cpu",
    precision: Precision = "fp32",
    batch: int | None = None,
    rounds: int = 3,
) -> Iterator[str]:
    """A line for the bare loop, and one for each method."""
    set_policy(1, precision)
    batch = batch or (kind.batch if device == "cpu" else PASS_ROWS[device])
    on = subject(kind, batch, device, precision)
    bare = partial(_bare_passes, on.ours, on.images_BCHW, on.labels_B)
    flops = _flops_of_a_gradient(on)
    seconds(bare, device)
    memory, second = peak_mib(bare, device), statistics.median(seconds(bare, device) for _ in range(rounds))
    yield (
        f"crafting: bare loop: {kind.name}, batch {batch}, {device}, {precision}: "
        f"{_BARE_PASSES * batch / second:,.1f} gradients/s, {_rates(flops * _BARE_PASSES * batch / second, memory)}"
    )
    for method in methods:
        work = shortened(method, batch, device)
        crafting = partial(_crafting, on, work)
        memory = peak_mib(crafting, device)
        own, around = in_alternation(crafting, bare, rounds, device)
        ratio = median_ratio(own, around) * _BARE_PASSES * batch / work.rows
        second = statistics.median(own)
        limit = f"limit {work.limit:.2f}" if work.limit else "no limit"
        missed = ", missed" if work.limit and ratio > work.limit else ""
        yield (
            f"crafting: {method}: {kind.name}, {work.attack.gradients} gradients of {work.images} images: "
            f"{ratio:.3f} x the bare loop ({limit}{missed}), {100 / ratio:.0f} % of its speed; "
            f"{work.images / second:,.1f} images/s, {_rates(flops * work.rows / second, memory)}"
        )


def _rates(flops_per_second: float, mib: float | None) -> str:
    memory = "memory not seen" if mib is None else f"at most {mib:,.0f} MiB"
    return f"{flops_per_second / 1e12:.3f} TFLOP/s, {memory}"


def _crafting(on: Subject, work: Work) -> None:
    wanted_B = (on.labels_B + 1) % 10 if work.attack.is_targeted else None
    craft(
        on.ours,
        on.images_BCHW[: work.images],
        on.labels_B[: work.images],
        on.ids[: work.images],
        work.attack,
        seed=0,
        wanted_B=None if wanted_B is None else wanted_B[: work.images],
        others=on.others,
    )


def _bare_passes(network: Classifier, images_BCHW: Tensor, labels_B: Tensor) -> None:
    pixels_BCHW = images_BCHW.to(torch.float32) / 255
    for _ in range(_BARE_PASSES):
        pixels_BCHW.requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(pixels_BCHW), labels_B, reduction="sum"), pixels_BCHW)
        pixels_BCHW = pixels_BCHW.detach()


def _flops_of_a_gradient(on: Subject) -> int:
    """Floating-point operations of the matrix products and convolutions of one forward and backward pass."""
    pixels_1CHW = (on.images_BCHW[:1].to(torch.float32) / 255).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(on.ours(pixels_1CHW), on.labels_B[:1]).backward()
    return int(counter.get_total_flops())


def main() -> None:
    """Times attacks on a CPU, on one thread, or on a GPU."""
    assert __doc__
    parser = flags_of_device(__doc__.splitlines()[0], "resnet20")
    parser.add_argument("methods", nargs="*", help="presets (default: all)", metavar="METHOD")
    parser.add_argument("--batch", type=int, help="images (default: the network's on a CPU, a whole pass on a GPU)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, of which the median counts")
    own = parser.parse_args()
    if unknown := [method for method in own.methods if method not in PRESETS]:
        parser.error(f"there is no method {unknown[0]!r}; choose from {', '.join(PRESETS)}")
    run_as_workers_do("tests.benchmarks.crafting")
    for precision in own.precision:
        methods = tuple(own.methods) or tuple(PRESETS)
        for line in lines(KINDS[own.network], methods, own.device, precision, own.batch, own.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
