"""Gradient relevance, GRA (Zhu et al. 2023, equations 5 to 7)."""

import torch
from torch import Tensor

from align_core.attacks.samples import At, cosine


def relevance(at: At, memory: None, count: int, radius: float) -> tuple[Tensor, None]:
    """The gradient times its cosine with the neighbours' mean gradient, plus the latter times what is left to 1."""
    keys_SB = at.keys_of_points("relevance", count + 1)
    points = torch.cat([at.ahead_BCHW[None], at.near(at.ahead_BCHW, keys_SB[1:], radius)])
    gradients = at.gradients(points, keys_SB)
    return weighted(gradients[0], gradients[1:].mean(dim=0)), None


def weighted(own_BCHW: Tensor, mean_BCHW: Tensor) -> Tensor:
    """Both gradients, the own one weighted by their cosine."""
    share_B111 = cosine(own_BCHW, mean_BCHW)
    return share_B111 * own_BCHW + (1 - share_B111) * mean_BCHW
