"""Maximin expected flatness, MEF (Qiu et al. 2024)."""

from torch import Tensor

from align_core.attacks.samples import At, per_mean


def flatness(
    at: At, memory: Tensor | None, count: int, radius: float, inner_radius: float, inner_decay: float
) -> tuple[Tensor, Tensor]:
    """The mean gradient over neighbours, each moved by what its own gradients were in the steps before.

    Args:
        at: where the attack stands.
        memory: how each of the neighbours is moved, [S, B, C, H, W].
        count: number of neighbours.
        radius: half the side of the cube in which they are drawn, in units of eps.
        inner_radius: length of the move, in units of eps.
        inner_decay: share of the last move that is taken off the next.
    """
    keys_SB = at.keys_of_points("flatness", count)
    points = at.near(at.ahead_BCHW, keys_SB, radius)
    if memory is not None:
        points = points + inner_radius * at.unit * memory
    gradients = at.gradients(points, keys_SB)
    moves = per_mean(gradients)
    return gradients.mean(dim=0), moves if memory is None else moves - inner_decay * memory
