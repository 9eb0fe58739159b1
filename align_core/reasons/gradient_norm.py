"""How steep the loss is: the length of its input gradient."""

from typing import NamedTuple

from torch import Tensor


class GradientNorm(NamedTuple):
    """Lengths of input gradients, float64 [B].

    Args:
        l1_B: sum of absolute values, the dual of l-infinity: eps times it is the largest change of the loss within the
            l-infinity ball of radius eps, to first order. In nats per pixel value.
        l2_B: Euclidean length, its own dual, for the l2 ball.
    """

    l1_B: Tensor
    l2_B: Tensor


def gradient_norm(gradient_BCHW: Tensor) -> GradientNorm:
    """|g|_1 and |g|_2 of the input gradient of each image (Ma et al. 2024 compare the latter before and after).

    Args:
        gradient_BCHW: from `passes.gradients`, at clean, random or attacked points.

    Nothing but these sums is computed: no pass.
    """
    gradient_BP = gradient_BCHW.flatten(1).double()
    return GradientNorm(gradient_BP.abs().sum(dim=1), gradient_BP.norm(dim=1))
