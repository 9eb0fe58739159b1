"""Pixels blended from others of the same image, with a gradient that is fast on a GPU and the same at every run."""

from typing import Any

import torch
from torch import Tensor

from align_core.numerics import adding_whole_numbers

_BITS = 40
"""Of a gradient, beside its image's largest. 2 ** 22 pixels that show the same one still fit into int64."""


def blended(images_NCHW: Tensor, index_KNP: Tensor, weight_KNP: Tensor) -> Tensor:
    """For each output pixel, row by row, the weighted sum of K pixels of its image: [N, C, H, W] again.

    Args:
        images_NCHW: float images.
        index_KNP: int64, the numbers of those pixels.
        weight_KNP: float, between -1 and 1.

    It is differentiable in the images and the weights.
    """
    if images_NCHW.is_cuda:
        made: Tensor = Blended.apply(images_NCHW, index_KNP, weight_KNP)
        return made
    total_NCP = torch.zeros_like(images_NCHW).flatten(2)
    for index_NP, weight_NP in zip(index_KNP, weight_KNP, strict=True):
        total_NCP = total_NCP + _gathered(images_NCHW, index_NP) * weight_NP[:, None]
    return total_NCP.view(images_NCHW.shape)


class Blended(torch.autograd.Function):
    """The same, whose gradient in the images is added up in whole numbers.

    Their sum is the same in any order, whereas torch sorts all indices to add floats in one order, which takes as long
    as the passes through a network. A gradient is rounded to 2 ** -40 of the largest of its image, far less than what
    adding floats loses; where one of an image is not finite, none is.
    """

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, index_KNP: Tensor, weight_KNP: Tensor) -> Tensor:
        """The weighted sums of `blended`, added up in place: a GPU reads and writes them once for each of the K."""
        ctx.save_for_backward(images_NCHW, index_KNP, weight_KNP)
        total_NCP = torch.zeros_like(images_NCHW).flatten(2)
        for index_NP, weight_NP in zip(index_KNP, weight_KNP, strict=True):
            total_NCP.addcmul_(_gathered(images_NCHW, index_NP), weight_NP[:, None])
        return total_NCP.view(images_NCHW.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """The gradients in the images and in the weights."""
        images_NCHW, index_KNP, weight_KNP = ctx.saved_tensors
        gradient_NCP = gradients[0].flatten(2)
        in_images = _spread(gradient_NCP, index_KNP, weight_KNP) if ctx.needs_input_grad[0] else None
        in_weights = None
        if ctx.needs_input_grad[2]:
            shown = ((gradient_NCP * _gathered(images_NCHW, index_NP)).sum(dim=1) for index_NP in index_KNP)
            in_weights = torch.stack(list(shown))
        return None if in_images is None else in_images.view(images_NCHW.shape), None, in_weights


def _gathered(images_NCHW: Tensor, index_NP: Tensor) -> Tensor:
    return images_NCHW.flatten(2).gather(2, index_NP[:, None].expand(-1, images_NCHW.shape[1], -1))


def _spread(gradient_NCP: Tensor, index_KNP: Tensor, weight_KNP: Tensor) -> Tensor:
    """What arrives at each pixel from all that show it."""
    smallest = torch.finfo(gradient_NCP.dtype).tiny
    largest_N11 = gradient_NCP.abs().amax(dim=(1, 2), keepdim=True).clamp_min(smallest)
    share_NCP = gradient_NCP / largest_N11
    total_NCP = torch.zeros_like(gradient_NCP, dtype=torch.int64)
    with adding_whole_numbers():
        for index_NP, weight_NP in zip(index_KNP, weight_KNP * 2.0**_BITS, strict=True):
            whole_NCP = (share_NCP * weight_NP[:, None]).to(torch.int64)
            total_NCP.scatter_add_(2, index_NP[:, None].expand_as(whole_NCP), whole_NCP)
    return total_NCP.to(gradient_NCP.dtype).mul_(2.0**-_BITS).mul_(largest_N11)
