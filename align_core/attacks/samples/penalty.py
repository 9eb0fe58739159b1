"""Penalising the gradient norm, PGN (Ge et al. 2023, equation 9 and algorithm 1)."""

from torch import Tensor

from align_core.attacks.samples import At, per_mean


def penalty(at: At, memory: None, count: int, radius: float, share: float) -> tuple[Tensor, None]:
    """The mean over neighbours of two gradients: at the neighbour, and a step back from it, weighted by `share`."""
    keys_SB = at.keys_of_points("penalty", count)
    near = at.near(at.ahead_BCHW, keys_SB, radius)
    there = at.gradients(near, keys_SB)
    back = at.gradients(near - at.stride * per_mean(there), at.keys_of_points("penalty, back", count))
    return ((1 - share) * there + share * back).mean(dim=0), None
