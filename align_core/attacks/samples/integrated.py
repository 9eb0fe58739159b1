"""Momentum integrated gradients, MIG (Ma et al. 2023; Sundararajan, Taly and Yan 2017)."""

import torch
from torch import Tensor

from align_core.attacks.samples import At


def integrated(at: At, memory: None, count: int) -> tuple[Tensor, None]:
    """Integrated gradients from black to the image: the image times the mean gradient over 1/S, 2/S ... of it."""
    factors = torch.arange(1, count + 1, device=at.keys_B.device, dtype=torch.float32) / count
    points = factors.view(-1, 1, 1, 1, 1) * at.ahead_BCHW
    # The gradient at the point, times the factor by which the image moves it.
    gradients = factors.view(-1, 1, 1, 1, 1) * at.gradients(points, at.keys_of_points("integrated", count))
    return at.ahead_BCHW * gradients.mean(dim=0), None
