"""Variance-reduced gradients, VR (Wu et al. 2018): the mean over points with Gaussian noise."""

from torch import Tensor

from align_core.attacks.samples import At
from align_core.randomness import normal, part_keys


def noise(at: At, memory: None, count: int, deviation: float) -> tuple[Tensor, None]:
    """The mean gradient over points with Gaussian noise, whose standard deviation is `deviation` units of eps."""
    keys_SB = at.keys_of_points("noise", count)
    draws = normal(part_keys(keys_SB.flatten(), 0, "deviation"), at.ahead_BCHW.shape[1:]).view(-1, *at.ahead_BCHW.shape)
    return at.gradients(at.ahead_BCHW + deviation * at.unit * draws, keys_SB).mean(dim=0), None
