"""The form of a blend that a GPU takes, tried on a CPU: its values and gradients are those of torch's own gathers."""

import math

import pytest
import torch
from torch import Tensor

from align_core.attacks.blending import Blended, blended

COUNT, CHANNELS, SIDE, SHOWN = 3, 2, 6, 4


def setting(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, numbers, weights, and what the gradient of each output is: the same pixels are shown many times."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((COUNT, CHANNELS, SIDE, SIDE), generator=generator, dtype=dtype)
    index = torch.randint(0, 7, (SHOWN, COUNT, SIDE * SIDE), generator=generator)
    weight = torch.rand((SHOWN, COUNT, SIDE * SIDE), generator=generator, dtype=dtype)
    towards = torch.randn((COUNT, CHANNELS, SIDE, SIDE), generator=generator, dtype=dtype)
    return images.requires_grad_(), index, weight.requires_grad_(), towards


def gradients(of: Tensor, towards: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((of * towards).sum(), inputs)


def test_it_shows_and_learns_what_gathers_do() -> None:
    images, index, weight, towards = setting()
    own, theirs = Blended.apply(images, index, weight), blended(images, index, weight)
    torch.testing.assert_close(own, theirs)
    for one, other in zip(
        gradients(own, towards, images, weight), gradients(theirs, towards, images, weight), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e30])
def test_a_gradient_of_any_size_keeps_what_float32_can_hold(scale: float) -> None:
    images, index, weight, towards = setting(torch.float32)
    (own,) = gradients(Blended.apply(images, index, weight), towards * scale, images)
    (theirs,) = gradients(blended(images.double(), index, weight.double()), towards.double() * scale, images)
    torch.testing.assert_close(own / scale, theirs / scale, rtol=1e-5, atol=1e-6)


def test_an_image_without_gradient_gets_zeros() -> None:
    images, index, weight, towards = setting(torch.float32)
    (own,) = gradients(Blended.apply(images, index, weight), torch.zeros_like(towards), images)
    assert not own.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so_in_its_own_image_alone(value: float) -> None:
    images, index, weight, towards = setting(torch.float32)
    towards[1, 0, 2, 3] = value
    (own,) = gradients(Blended.apply(images, index, weight), towards, images)
    assert own[[0, 2]].isfinite().all() and not own[1].isfinite().all()


def test_the_order_in_which_pixels_are_added_changes_no_bit() -> None:
    images, index, weight, towards = setting(torch.float32)
    order = torch.arange(SIDE * SIDE - 1, -1, -1)
    (own,) = gradients(Blended.apply(images, index, weight), towards, images)
    turned = Blended.apply(images, index[..., order].flip(0), weight[..., order].flip(0))
    (other,) = gradients(turned, towards.flatten(2)[..., order].view_as(towards), images)
    assert torch.equal(own, other)
