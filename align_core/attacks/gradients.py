"""Smoothing of the gradient before it becomes a step."""

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian(side: int) -> Tensor:
    """A Gaussian that covers -3 to 3 standard deviations and sums to 1 (Dong et al. 2019).

    Returns float32 [side], of which the kernel is the product along both axes.
    """
    x_S = torch.linspace(-3, 3, side) if side > 1 else torch.zeros(1)
    bell_S = torch.exp(-(x_S**2) / 2)
    return bell_S / bell_S.sum()


def smooth(gradient_BCHW: Tensor, bell_S: Tensor) -> Tensor:
    """Convolves each channel of the gradient with a kernel, padded with zeros: translation invariance, TI.

    The kernel is the product of `bell_S` along both axes, so that one axis follows the other. Dong et al. (2019) show
    that this approximates the mean gradient over shifted images at the cost of one gradient. Returns a gradient of the
    same shape.
    """
    # As the channels of one image in channels-last layout it takes less time on a CPU.
    planes_1NHW = gradient_BCHW.flatten(0, 1)[None].contiguous(memory_format=torch.channels_last)
    count, reach = planes_1NHW.shape[1], len(bell_S) // 2
    weight_N1S1 = bell_S.to(gradient_BCHW)[None, None, :, None].expand(count, 1, -1, -1)
    planes_1NHW = F.conv2d(planes_1NHW, weight_N1S1, padding=(reach, 0), groups=count)
    planes_1NHW = F.conv2d(planes_1NHW, weight_N1S1.transpose(2, 3), padding=(0, reach), groups=count)
    return planes_1NHW.reshape(gradient_BCHW.shape)
