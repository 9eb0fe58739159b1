"""Variance tuning, VMI and VNI (Wang and He 2021, equation 7)."""

import torch
from torch import Tensor

from align_core.attacks.samples import At


def variance(at: At, memory: Tensor | None, count: int, radius: float) -> tuple[Tensor, Tensor | None]:
    """The gradient, plus by how much the mean gradient of the last step's neighbours was greater than its own.

    No neighbours are looked at in the last step, since only the next one would use their gradients.
    """
    count = 0 if at.is_last else count
    keys_SB = at.keys_of_points("variance", count + 1)
    points = torch.cat([at.ahead_BCHW[None], at.near(at.image_BCHW, keys_SB[1:], radius)])
    gradients = at.gradients(points, keys_SB)
    tuned_BCHW = gradients[0] if memory is None else gradients[0] + memory
    return tuned_BCHW, gradients[1:].mean(dim=0) - gradients[0] if count else None
