"""Smoothing of the gradient before it becomes a step."""

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_kernel(side: int) -> Tensor:
    """A Gaussian kernel that covers -3 to 3 standard deviations and sums to 1 (Dong et al. 2019).

    Returns float32 [side, side].
    """
    x_S = torch.linspace(-3, 3, side) if side > 1 else torch.zeros(1)
    bell_S = torch.exp(-(x_S**2) / 2)
    kernel_SS = bell_S[:, None] * bell_S[None, :]
    return kernel_SS / kernel_SS.sum()


def smooth(gradient_BCHW: Tensor, kernel_SS: Tensor) -> Tensor:
    """Convolves each channel of the gradient with the kernel, padded with zeros: translation invariance, TI.

    Dong et al. (2019) show that this approximates the mean gradient over shifted images at the cost of one gradient.
    Returns a gradient of the same shape.
    """
    channels = gradient_BCHW.shape[1]
    weight_C1SS = kernel_SS.to(gradient_BCHW)[None, None].expand(channels, 1, -1, -1)
    return F.conv2d(gradient_BCHW, weight_C1SS, padding=kernel_SS.shape[0] // 2, groups=channels)
