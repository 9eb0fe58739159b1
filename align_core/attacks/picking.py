"""Pixels picked by their numbers, with a gradient that is fast on a GPU and the same at every run."""

from typing import Any

import torch
from torch import Tensor

from align_core.numerics import adding_whole_numbers

_BITS = 40
"""Of a gradient, beside its image's largest. 2 ** 22 pixels that show the same one still fit into int64."""


def picked_pixels(images_NCHW: Tensor, index_NP: Tensor) -> Tensor:
    """The pixels of each image with these numbers, row by row: [N, C, H, W] again, differentiable in the images.

    Args:
        images_NCHW: float images.
        index_NP: int64, for each output pixel the number of the one that it shows.
    """
    if images_NCHW.is_cuda:
        picked: Tensor = _Picked.apply(images_NCHW, index_NP)
        return picked
    return _gathered(images_NCHW, index_NP)


def _gathered(images_NCHW: Tensor, index_NP: Tensor) -> Tensor:
    index_NCP = index_NP[:, None].expand(*images_NCHW.shape[:2], -1)
    return images_NCHW.flatten(2).gather(2, index_NCP).view(images_NCHW.shape)


class _Picked(torch.autograd.Function):
    """A gather whose gradient is added up in whole numbers.

    Their sum is the same in any order, whereas torch sorts all indices to add floats in one order, which takes as long
    as the passes through a network. A gradient is rounded to 2 ** -40 of the largest of its image, far less than what
    adding floats loses.
    """

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, index_NP: Tensor) -> Tensor:
        ctx.save_for_backward(index_NP)
        return _gathered(images_NCHW, index_NP)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index_NP,), (gradient_NCHW,) = ctx.saved_tensors, gradients
        return spread(gradient_NCHW, index_NP), None


def spread(gradient_NCHW: Tensor, index_NP: Tensor) -> Tensor:
    """The gradient of `picked_pixels` in its images: what arrives at each pixel, from all that show it.

    It is not finite for an image where one of its gradients is not.
    """
    gradient_NCP = gradient_NCHW.flatten(2)
    smallest = torch.finfo(gradient_NCP.dtype).tiny
    largest_N11 = gradient_NCP.abs().amax(dim=(1, 2), keepdim=True).clamp_min(smallest)
    whole_NCP = (gradient_NCP / largest_N11 * 2.0**_BITS).to(torch.int64)
    with adding_whole_numbers():
        total_NCP = torch.zeros_like(whole_NCP).scatter_add_(2, index_NP[:, None].expand_as(whole_NCP), whole_NCP)
    return (total_NCP.to(gradient_NCP.dtype) * 2.0**-_BITS * largest_N11).view(gradient_NCHW.shape)
