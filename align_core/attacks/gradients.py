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
    # As the channels of one image in channels-last layout it takes a fifth of the time on a CPU, with the same bits.
    planes_1NHW = gradient_BCHW.flatten(0, 1)[None].contiguous(memory_format=torch.channels_last)
    count = planes_1NHW.shape[1]
    weight_N1SS = kernel_SS.to(gradient_BCHW)[None, None].expand(count, 1, -1, -1)
    smooth_1NHW = F.conv2d(planes_1NHW, weight_N1SS, padding=kernel_SS.shape[0] // 2, groups=count)
    return smooth_1NHW.reshape(gradient_BCHW.shape)
