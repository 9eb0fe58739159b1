"""Every preset on CUDA tensors that hold nothing: devices, shapes and types are those of a GPU, without one.

Without a driver, torch's autograd makes no backward pass of CUDA tensors. There a gradient of zeros stands for it, and
the backward pass itself is made on tensors of the device `meta`, which hold nothing either.
"""

from collections.abc import Iterator

import pytest
import torch
from attack_setting import attack_of, quick
from fake_cuda import Seen, fake_cuda
from torch import Tensor

from align_core.attacks import PRESETS, Others, loop
from align_core.attacks.views import warp
from align_core.model_config import Precision
from align_core.models import Classifier, predicting


def no_gradient(value: Tensor, leaf: Tensor) -> tuple[Tensor]:
    assert value.requires_grad and value.ndim == 0 and value.device.type == "cuda"
    return (torch.zeros_like(leaf),)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors are fake, and made on a fake GPU. What was computed of them is forgotten afterwards."""
    monkeypatch.setattr(torch.autograd, "grad", no_gradient)
    with fake_cuda(monkeypatch):
        yield
    warp._spline_basis.cache_clear()


def attacked_on(device: str, method: str, precision: Precision = "fp32") -> set[torch.dtype]:
    """Attacks images on a device, and returns the types in which the network computed."""
    with torch.device(device):
        net = Seen(16)
        surrogate = Classifier(net, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)).eval()
        images, labels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    surrogate.precision = precision
    attack = attack_of(method, **quick(method, steps=2)).for_images(3, 16)
    wanted = labels if attack.is_targeted else None
    with torch.enable_grad(), predicting(surrogate, frozen=True):
        others = Others(images, labels)
        batch = loop._attacked(lambda step: [surrogate], images, labels, wanted, labels, attack, others, 7)
    assert batch.images_BCHW.shape == images.shape and batch.images_BCHW.dtype == torch.uint8
    assert {part.device.type for part in batch} == {device}
    assert {part.dtype for part in batch[1:]} == {torch.bool}
    return net.types


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("method", "precision"),  # of which tf32 has the types of fp32, whatever the method
    [("mi", "tf32"), *((method, precision) for precision in ("fp32", "bf16") for method in PRESETS)],
)
def test_a_preset_stays_on_the_gpu_and_the_network_alone_computes_in_bf16(method: str, precision: Precision) -> None:
    computed = torch.bfloat16 if precision == "bf16" else torch.float32
    assert attacked_on("cuda", method, precision) == {computed}


@pytest.mark.parametrize("method", PRESETS)
def test_the_backward_pass_stays_on_its_device(method: str) -> None:
    assert attacked_on("meta", method) == {torch.float32}
