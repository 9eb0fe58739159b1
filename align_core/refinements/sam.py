"""Sharpness-aware minimisation (SAM; Foret et al., ICLR 2021, 2010.01412)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from align_core.refinements.moved import length_of, moved

Values = dict[str, Tensor]


def sam(gradients: Callable[[], Values], parameters: Sequence[nn.Parameter], rho: float) -> Values:
    """Leaves the gradient at w + rho g / |g|, where g is that at the weights w; the weights are as they were.

    The length is over all parameters together (equation 2 of the paper). Returns the values of the first pass.
    """
    values = gradients()
    with torch.no_grad():
        shift = rho / length_of([own.grad for own in parameters if own.grad is not None])
        by = [None if own.grad is None else shift * own.grad for own in parameters]
    with moved(parameters, by):
        gradients()
    return values
