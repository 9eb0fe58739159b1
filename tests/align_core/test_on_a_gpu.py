"""On a GPU, where the machine has one: what is computed there is what a CPU computes, and is the same every time.

torch warns of kernels that are not deterministic, and here warnings are errors.
"""

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_setting import Setting, attack_of, quick
from fake_cuda import Seen
from small_nets import assert_identical
from test_fake_cuda_alignment import ALIGN, PARTS, SIDE
from torch import Tensor, nn

from align_core.align_config import AlignConfig
from align_core.alignment import Alignment
from align_core.attacks import PRESETS, Crafted, Others, crafted
from align_core.models import Classifier
from align_core.numerics import set_policy
from align_core.randomness import image_keys, normal, part_keys, uniform
from align_core.reasons import curvature, gradient_norm, gradients
from align_core.weights import State

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

STEPS = 4


@pytest.fixture(autouse=True)
def _policy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Computes as the workers do, and as before afterwards."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
    set_policy(torch.get_num_threads(), "fp32")
    yield
    torch.use_deterministic_algorithms(False)


def attacked(setting: Setting, device: str, method: str, pass_rows: int | None = None) -> Crafted:
    """Attacks the images of a setting on a device; what comes back is on the CPU."""
    attack = attack_of(method, **quick(method))
    made = crafted(
        copy.deepcopy(setting.net).to(device), setting.images.to(device), setting.labels.to(device), setting.ids,
        attack, seed=0, wanted_B=setting.wanted.to(device) if attack.is_targeted else None,
        others=Others(*(own.to(device) for own in setting.others)), pass_rows=pass_rows,
    )  # fmt: skip
    assert made.images_BCHW.device.type == device
    return made._replace(images_BCHW=made.images_BCHW.cpu())


@pytest.mark.parametrize("method", PRESETS)
def test_an_attack_makes_the_images_of_the_cpu(small: Setting, method: str) -> None:
    """In float64, where hardly any gradient is so near zero that rounding decides its sign."""
    ours, theirs = (attacked(small.double(), device, method).images_BCHW for device in ("cuda", "cpu"))
    assert (ours == theirs).float().mean() > 0.99


@pytest.mark.parametrize("method", PRESETS)
def test_an_attack_makes_the_same_images_again(small: Setting, method: str) -> None:
    first, second = (attacked(small, "cuda", method).images_BCHW for _ in range(2))
    assert torch.equal(first, second)


def test_a_pass_that_does_not_fit_in_memory_is_halved(small: Setting) -> None:
    many = replace(small, images=small.images.repeat(500, 1, 1, 1), labels=small.labels.repeat(500))
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 200 * 2**20) / whole)
    try:
        made = attacked(many, "cuda", "pgd", pass_rows=4_000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert made.pass_rows is not None and 125 <= made.pass_rows < 4_000
    assert torch.equal(made.images_BCHW, attacked(many, "cuda", "pgd", pass_rows=made.pass_rows).images_BCHW)


def aligned(device: str, align: AlignConfig, stop_at: int | None = None) -> State:
    """Takes steps of an alignment, by way of a file's state if it is to stop, and returns its state on the CPU."""
    alignment = begun(device, align)
    for step in range(STEPS):
        if step == stop_at:
            state = {name: value.cpu() for name, value in alignment.state().items()}
            alignment = begun(device, align)
            alignment.restore(state)
        generator = torch.Generator().manual_seed(step)
        images, labels = torch.rand(8, 3, SIDE, SIDE, generator=generator), torch.arange(8)
        alignment.step(images.to(device), labels.to(device))
    return {name: value.cpu() for name, value in alignment.state().items()}


def begun(device: str, align: AlignConfig) -> Alignment:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [Classifier(Seen(SIDE), mean=(0.5,) * 3, std=(0.2,) * 3).to(device) for _ in range(3)]
    return Alignment(nets[0], nets[1:], align, STEPS, seed=0, shape=(3, SIDE, SIDE), steps_per_epoch=1)


@pytest.mark.parametrize("settings", [{}, *PARTS], ids=str)
def test_an_alignment_is_that_of_the_cpu_and_the_same_again_and_resumed(settings: dict[str, Any]) -> None:
    align = replace(ALIGN, **settings)
    first = aligned("cuda", align)
    assert_identical(aligned("cuda", align), first)
    assert_identical(aligned("cuda", align, stop_at=2), first)
    expected = aligned("cpu", align)
    assert first.keys() == expected.keys()
    if {"mix", "inputs"} & settings.keys():
        return  # torch draws other numbers on a GPU
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, at=name: f"{at}: {text}")


def test_random_numbers_are_those_of_the_cpu() -> None:
    keys = part_keys(image_keys(3, [f"{row}" for row in range(50)]), 1, "test")
    assert torch.equal(uniform(keys.cuda(), (3, 17)).cpu(), uniform(keys, (3, 17)))
    torch.testing.assert_close(normal(keys.cuda(), (3, 17)).cpu(), normal(keys, (3, 17)))


def test_reasons_are_those_of_the_cpu(small: Setting) -> None:
    def measured(device: str) -> list[Tensor]:
        net: nn.Module = copy.deepcopy(small.net).to(device)
        images, labels = small.images.to(device).float() / 255, small.labels.to(device)
        norms = gradient_norm(gradients(net, images, labels, small.ids).gradient_BCHW)
        return [norms.l2_B.cpu(), curvature(net, images, labels, small.ids, seed=0).value_B.cpu()]

    for ours, theirs in zip(measured("cuda"), measured("cpu"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)
