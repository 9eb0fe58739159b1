"""What is done to the gradient before it becomes a step."""

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_kernel(side: int) -> Tensor:
    """A Gaussian over [-3, 3] standard deviations, [side, side], summing to 1 (Dong et al. 2019)."""
    x_S = torch.linspace(-3, 3, side) if side > 1 else torch.zeros(1)
    bell_S = torch.exp(-(x_S**2) / 2)
    kernel_SS = bell_S[:, None] * bell_S[None, :]
    return kernel_SS / kernel_SS.sum()


def smooth(gradient_BCHW: Tensor, kernel_SS: Tensor) -> Tensor:
    """Translation invariance (Dong et al. 2019): each channel convolved with the kernel, zeros outside."""
    channels = gradient_BCHW.shape[1]
    weight_C1SS = kernel_SS.to(gradient_BCHW)[None, None].expand(channels, 1, -1, -1)
    return F.conv2d(gradient_BCHW, weight_C1SS, padding=kernel_SS.shape[0] // 2, groups=channels)
