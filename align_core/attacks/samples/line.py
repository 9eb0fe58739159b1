"""Enhanced momentum, EMI (Wang, Lin, Wang and Xie 2021)."""

import torch
from torch import Tensor

from align_core.attacks.samples import At, per_mean


def line(at: At, memory: Tensor | None, count: int, radius: float) -> tuple[Tensor, Tensor]:
    """The mean gradient over evenly spaced points on a line through the image, along the last mean gradient.

    Args:
        at: where the attack stands. In the first step there is no last gradient, and one point.
        memory: the last mean gradient, divided by its mean absolute value.
        count: number of points.
        radius: how far the line reaches either way, in steps.
    """
    if memory is None:
        points = at.ahead_BCHW[None]
    else:
        factors = torch.linspace(-radius, radius, count, device=memory.device) if count > 1 else memory.new_zeros(1)
        points = at.ahead_BCHW + factors.view(-1, 1, 1, 1, 1) * at.stride * memory
    gradient_BCHW = at.gradients(points, at.keys_of_points("line", len(points))).mean(dim=0)
    return gradient_BCHW, per_mean(gradient_BCHW)
