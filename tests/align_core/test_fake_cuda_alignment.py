"""Steps of an alignment on CUDA tensors that hold nothing: all of it stays on the GPU, without one.

Tensors without values have no numbers to be asked for: where a step asks for one, plausible numbers stand for them. The
backward pass is replaced on fake CUDA tensors, and is made on tensors of the device `meta`.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from fake_cuda import Seen, fake_cuda
from torch import Tensor, nn

from align_core.align_config import AlignConfig, AugmentConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.augmentation import Drawn, arranged
from align_core.losses import LOSSES
from align_core.model_config import Precision
from align_core.models import Classifier
from align_core.refinements.parts import KEEPS

SIDE, ROWS, STEPS = 16, 3, 4
TWO_DEVICES = "found (at least )?two (different )?devices"
FIGURES = {"lr", "loss", "alignment_loss", "label_loss", "grad_norm"}
ALIGN = AlignConfig(label_weight=0.5, clip_grad_norm=1.0, optimizer=OptimizerConfig(name="sgd", momentum=0.9))
SETTINGS = [
    replace(ALIGN, batchnorm=batchnorm, optimizer=optimizer, clip_grad_norm=clip)
    for batchnorm, optimizer, clip in product(
        ("update", "frozen"), (ALIGN.optimizer, OptimizerConfig(name="adamw", weight_decay=0.1)), (None, 1.0)
    )
]
NAMES = [f"{own.batchnorm}-{own.optimizer.name}-{own.clip_grad_norm}" for own in SETTINGS]


@pytest.fixture
def without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers for whoever asks a tensor that holds none: labels of class 0, pixels of 0.5, a finite gradient."""
    monkeypatch.setattr(Tensor, "__int__", lambda own: 0)
    monkeypatch.setattr(Tensor, "__float__", lambda own: 0.5)
    monkeypatch.setattr(Tensor, "__bool__", lambda own: True)
    monkeypatch.setattr(Tensor, "item", lambda own: 1.0)
    monkeypatch.setattr(torch, "equal", lambda own, other: own.shape == other.shape)
    monkeypatch.setattr(Tensor, "tolist", lambda own: np.full(tuple(own.shape), 0.5).tolist())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, without_values: None) -> Iterator[None]:
    monkeypatch.setattr(Tensor, "backward", give_gradients)
    with fake_cuda(monkeypatch):
        yield


def give_gradients(loss: Tensor) -> None:
    """In place of a backward pass: a gradient for each parameter that the loss was computed from."""
    assert loss.requires_grad and loss.ndim == 0 and loss.dtype == torch.float32
    assert loss.device.type == "cuda"
    left, met = [loss.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in met:
            continue
        met.add(node)
        left += [following for following, _ in node.next_functions]
        if (parameter := getattr(node, "variable", None)) is not None:
            parameter.grad = torch.zeros_like(parameter)


def hands_out_float32(_classifier: nn.Module, _images: Any, logits: Tensor) -> None:
    assert logits.dtype == torch.float32


def begun(device: str, align: AlignConfig, precision: Precision, **options: Any) -> Alignment:
    """An alignment of a network to two witnesses, on a device."""
    with torch.device(device):
        nets = [Classifier(Seen(SIDE), mean=(0.5,) * 3, std=(0.2,) * 3) for _ in range(3)]
    for own in nets:
        own.precision = precision
        own.register_forward_hook(hands_out_float32)
    return Alignment(nets[0], nets[1:], align, STEPS, seed=0, **options)


def stepped(alignment: Alignment, device: str) -> set[torch.dtype]:
    """Takes a step, and returns the types in which the networks computed."""
    images, labels = torch.rand(ROWS, 3, SIDE, SIDE, device=device), torch.zeros(ROWS, dtype=torch.int64, device=device)
    assert alignment.step(images, labels).keys() == FIGURES
    networks = [alignment.source, *alignment.witnesses]
    return {kind for network in networks for part in network.modules() if isinstance(part, Seen) for kind in part.types}


def devices(alignment: Alignment) -> dict[str, str]:
    """Of all that the next step depends on. The number of steps is on the CPU, where AdamW keeps it, too."""
    return {name: own.device.type for name, own in alignment.state().items() if name.rpartition(".")[2] != "step"}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("align", SETTINGS, ids=NAMES)
def test_steps_stay_on_the_gpu_and_the_networks_alone_compute_in_bf16(align: AlignConfig, precision: Precision) -> None:
    first = begun("cuda", align, precision)
    wanted = {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert stepped(first, "cuda") == wanted
    assert stepped(first, "cuda") == wanted
    assert set(devices(first).values()) == {"cuda"}
    assert any(name.startswith("optimizer.") for name in devices(first))
    later = begun("cuda", align, precision)
    later.restore({name: torch.zeros_like(value, device="cpu") for name, value in first.state().items()})
    assert stepped(later, "cuda") == wanted
    assert devices(later) == devices(first)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("align", SETTINGS, ids=NAMES)
def test_the_backward_pass_stays_on_its_device(align: AlignConfig) -> None:
    alignment = begun("meta", align, "fp32")
    assert stepped(alignment, "meta") == {torch.float32}
    assert set(devices(alignment).values()) == {"meta"}
    assert not alignment.leaves_parameters_unused


@pytest.mark.usefixtures("fake")
def test_training_on_labels_alone_stays_on_the_gpu() -> None:
    with torch.device("cuda"):
        source = Classifier(Seen(SIDE), mean=(0.5,) * 3, std=(0.2,) * 3)
    assert stepped(Alignment(source, [], ALIGN, STEPS, seed=0), "cuda") == {torch.float32}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("align", [*SETTINGS, replace(ALIGN, accumulate=2), replace(ALIGN, mix="mixup")], ids=str)
def test_a_step_asks_for_no_value_of_the_gpu(align: AlignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for all that the GPU has still to do. The first step does, which looks at the pixels' range."""
    alignment = begun("cuda", align, "fp32")
    images, labels = torch.rand(ROWS, 3, SIDE, SIDE, device="cuda"), torch.zeros(ROWS, dtype=torch.int64, device="cuda")
    alignment.take(images, labels)
    for name in ("__int__", "__float__", "__bool__", "item", "tolist"):
        answer = getattr(Tensor, name)

        def asked(own: Tensor, name: str = name, answer: Any = answer) -> Any:
            assert own.device.type == "cpu", name
            return answer(own)

        monkeypatch.setattr(Tensor, name, asked)
    taken = alignment.take(images, labels)
    assert {own.device.type for own in taken.values.values()} == {"cuda"}


class Wrapped(nn.Module):
    """What data-parallel training puts around a network: it has the forward pass alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.module = inner

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"loss": ["kl", "hint"]}, {"keep": "swa"}], ids=str)
def test_a_network_that_is_wrapped_stays_on_the_gpu(settings: dict[str, Any]) -> None:
    align = AlignConfig(label_weight=0.5, **settings)
    alignment = begun("cuda", align, "fp32", shape=(3, SIDE, SIDE), steps_per_epoch=2, wrap=Wrapped)
    assert stepped(alignment, "cuda") == {torch.float32}
    assert stepped(alignment, "cuda") == {torch.float32}
    counts = {name for name in devices(alignment) if name.endswith("gathered")}
    assert {kind for name, kind in devices(alignment).items() if name not in counts} == {"cuda"}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("crop", ["none", "pad4", "random_resized"])
def test_images_are_cropped_and_flipped_where_they_have_been_sent(crop: Any) -> None:
    pixels = torch.zeros((ROWS, 3, SIDE, SIDE), dtype=torch.uint8, device="cuda")
    images = arranged(Drawn(pixels, torch.rand((ROWS, 5), device="cuda")), AugmentConfig(crop=crop))
    assert images.device.type == "cuda" and images.dtype == torch.float32 and images.shape == pixels.shape


class OnTheCpu(nn.Module):
    """A witness whose logits have been left on the CPU."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 10)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_tensor_of_the_cpu_among_them_is_noticed(precision: Precision) -> None:
    alignment = begun("cuda", ALIGN, precision)
    images, labels = torch.rand(ROWS, 3, SIDE, SIDE, device="cuda"), torch.zeros(ROWS, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        alignment.step(images, labels)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        alignment.step(images.cpu(), labels.cuda())
    alignment.witnesses[1] = OnTheCpu()
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        alignment.step(images, labels.cuda())


PARTS: list[dict[str, Any]] = [
    *({"loss": name} for name, loss in LOSSES.items() if loss.sees != "places"),
    {"over_witnesses": [1, 2], "loss": ["kl", "hint"]},
    {"over_witnesses": "max"},
    {"mix": "mixup", "inputs": "random"},
    *({"keep": name} for name in KEEPS),
]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("settings", PARTS, ids=str)
def test_losses_mixes_and_what_is_kept_stay_on_the_gpu(settings: dict[str, Any]) -> None:
    """Also where a state goes on that was read from a file, and so is on the CPU."""
    align = AlignConfig(label_weight=0.5, **settings)
    first = begun("cuda", align, "fp32", shape=(3, SIDE, SIDE), steps_per_epoch=1)
    assert stepped(first, "cuda") == {torch.float32}
    later = begun("cuda", align, "fp32", shape=(3, SIDE, SIDE), steps_per_epoch=1)
    later.restore({name: torch.zeros_like(value, device="cpu") for name, value in first.state().items()})
    assert stepped(later, "cuda") == {torch.float32}
    counts = {name for name in devices(later) if name.endswith("gathered")}
    assert {kind for name, kind in devices(later).items() if name not in counts} == {"cuda"}
    kept = later.networks(lambda: [torch.rand(ROWS, 3, SIDE, SIDE, device="cuda")])
    assert {value.device.type for own in kept for value in own.values()} == {"cuda"}
