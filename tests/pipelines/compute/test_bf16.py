"""`precision: bf16` gives the transfer rates of float32, as the paired interval shows; a coarser precision does not.

What is compared is a run in one precision with a run in the other: crafting on the source and predicting on the
targets, with networks as workers hold them. The images counted are the same for both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits_experiment import CNN, IMAGE_SIZE, NETWORKS
from torch import Tensor, nn

from align_core.attacks import AttackConfig, craft
from align_core.folding import foldable
from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.model_config import ModelConfig, Precision
from align_core.models import build
from align_core.transfer import Flags, Gain, paired_gain
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.networks import Network
from pipelines.storage.store import Store

POINTS = 5.0
"""The largest difference of rates that the interval of one that agrees may hold, in percentage points."""
COARSE = 0
"""The bits of the mantissa in which rates do not agree: 3, as in fp8, are not told from float32 by so few images."""


def agree(gain: Gain) -> bool:
    """Whether the difference of two rates is shown to be small: a wide interval, though it holds 0, shows nothing."""
    assert gain.low is not None and gain.high is not None
    return -POINTS <= gain.low <= gain.high <= POINTS


@dataclass(frozen=True)
class Case:
    """Networks, the first of which is the source, and images to attack it on."""

    models: dict[str, ModelConfig]
    images: Tensor
    labels: Tensor
    batch: int

    def networks(self, precision: Precision) -> LoadedNetworks:
        channels = self.images.shape[1]
        known = {
            name: Network(name, config, None, folded=foldable(build(config, 10, channels).net).pairs)
            for name, config in self.models.items()
        }
        return LoadedNetworks(NetworkLoader(Store("/nowhere", "n"), known, 10, channels, precision), "cpu")

    def predicted(self, network: nn.Module, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(some.float() / 255).argmax(1) for some in images.split(self.batch)])

    def crafted(self, surrogate: nn.Module, attack: AttackConfig) -> Tensor:
        made = []
        for rows in torch.arange(len(self.images)).split(self.batch):
            ids = [f"{row:05d}" for row in rows.tolist()]
            made.append(craft(surrogate, self.images[rows], self.labels[rows], ids, attack, seed=0))
        return torch.cat(made)

    def wrong(
        self, attack: AttackConfig, precision: Precision, bits: int | None = None
    ) -> tuple[dict[str, Flags], Tensor]:
        """By target, which images fool it; and the images. With `bits`, the source computes in no more."""
        networks, (source, *targets) = self.networks(precision), self.models
        surrogate = networks.mean_of([source])
        if bits is not None:
            compute_coarsely(surrogate, bits)
        images = self.crafted(surrogate, attack)
        found = {name: self.predicted(networks.mean_of([name]), images) != self.labels for name in targets}
        return {name: flags.numpy() for name, flags in found.items()}, images

    def differences(self, attack: AttackConfig) -> dict[str, list[Gain]]:
        """By target, how far the rates under bf16, and of a coarse source, are from those under float32."""
        exact, images = self.wrong(attack, "fp32")
        runs = [self.wrong(attack, "bf16"), self.wrong(attack, "fp32", COARSE)]
        assert all((other != images).float().mean() > 0.001 for _, other in runs)  # else it was not in force
        networks, (source, *targets) = self.networks("fp32"), self.models
        right = {name: self.predicted(networks.mean_of([name]), self.images) == self.labels for name in self.models}
        found = {}
        for name in targets:
            counted = (right[source] & right[name]).numpy()
            found[name] = [paired_gain(wrong[name][counted], exact[name][counted]) for wrong, _ in runs]
            rates = [f"{100 * wrong[name][counted].mean():.1f}" for wrong in (exact, *(wrong for wrong, _ in runs))]
            shown = [f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]" for gain in found[name]]
            print(f"{attack.method} {name}, {counted.sum()} images: fp32, bf16, {COARSE} bits: {rates}, {shown}")
        return found


class Rounded(torch.autograd.Function):
    """Rounds values, and their gradient, to so many bits of the mantissa: bf16 has 7, and with 0 only powers of two."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bits: int) -> Tensor:
        ctx.bits = bits
        return rounded(values, bits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return rounded(gradient, ctx.bits), None


def rounded(values: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)


def compute_coarsely(network: nn.Module, bits: int) -> None:
    """Rounds what convolutions and linear layers multiply and hand out, forwards and backwards, as hardware does."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data = rounded(part.weight.data, bits)
            part.register_forward_pre_hook(lambda _part, taken: (Rounded.apply(taken[0], bits),))
            part.register_forward_hook(lambda _part, _taken, output: Rounded.apply(output, bits))


def test_rounding_to_seven_bits_is_what_bf16_does() -> None:
    values = torch.randn(1000, generator=torch.manual_seed(0)) * 100
    assert torch.equal(rounded(values, 7), values.bfloat16().float())


@pytest.mark.parametrize("method", ["mi", pytest.param("di", marks=pytest.mark.slow)])
def test_on_digits(weights: Path, method: str) -> None:
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    ids, labels = digits.listing()
    case = Case(
        {
            name: ModelConfig(factory=CNN, args=NETWORKS[name], weights=str(weights / f"{name}.safetensors"))
            for name in ("cnn_a", "cnn_b", "wide")
        },
        torch.from_numpy(read_images(digits, ids[600:])),
        torch.from_numpy(labels[600:]),
        batch=400,
    )
    attack = AttackConfig(method=method, eps=12 / 255, step=3 / 255, steps=6)
    for bf16, coarse in case.differences(attack).values():
        assert agree(bf16)
        assert not agree(coarse)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mi", "di"])
def test_on_cifar10(cifar10: Path, method: str) -> None:
    """Minutes, on a CPU without bf16 of its own."""
    files = {"resnet20": "12fca82f", "resnet44": "014dd654"}
    with np.load(cifar10 / "test_lossless_1000.npz") as stored:
        images, labels = stored["images"][:300], stored["labels"][:300]
    case = Case(
        {
            name: ModelConfig(
                factory="pipelines.recipes.cifar_models:resnet",
                args={"depth": int(name.removeprefix("resnet"))},
                weights=str(cifar10 / f"akamaster_{name}-{file}.th"),
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
            )
            for name, file in files.items()
        },
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels).long(),
        batch=100,
    )
    attack = AttackConfig(method=method, eps=4 / 255, step=1 / 255, steps=5)
    ((bf16, coarse),) = case.differences(attack).values()
    assert agree(bf16)
    assert not agree(coarse)
