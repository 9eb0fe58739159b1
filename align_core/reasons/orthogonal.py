"""How much of a perturbation does nothing to a target, to first order."""

from torch import Tensor

from align_core.reasons.agreement import cosine


def orthogonal_share(perturbation_BCHW: Tensor, gradient_BCHW: Tensor) -> Tensor:
    """1 - cos^2 of the perturbation and the target's gradient, from 0 to 1: float64 [B]; NaN where either is zero.

    It is the share of the *squared* l2 length: of d = d_parallel + d_orthogonal it is |d_orthogonal|^2 / |d|^2, so that
    it and the parallel share cos^2 sum to 1. The share of the length itself is its root. In P pixels a random direction
    has 1 - 1 / P on average, so that shares very near 1 are the rule; `agreement.cosine` of the same two says besides
    whether the parallel part climbs the target's loss (above 0).

    Args:
        perturbation_BCHW: attacked minus clean image, float.
        gradient_BCHW: of the target's cross-entropy at the clean image, from `passes.gradients`, for analysis alone.

    No pass but the one of the gradient. Raises InputError for other shapes.
    """
    return 1 - cosine(perturbation_BCHW, gradient_BCHW) ** 2
