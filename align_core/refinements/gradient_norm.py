"""The gradient norm as a penalty, in the fine-tune of MBA (Li et al., ICLR 2023, 2302.05086)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from align_core.refinements.moved import length_of, moved

Values = dict[str, Tensor]


def gradient_norm(
    gradients: Callable[[], Values], parameters: Sequence[nn.Parameter], weight: float, gamma: float
) -> Values:
    """Leaves g + weight / gamma (g' - g), where g' is the gradient at w + gamma g / |g| and g that at the weights w.

    It is the gradient of the loss plus `weight` times the length of its gradient, by finite differences, which is how
    the authors' code bounds the worst loss near the weights. Returns the values of the first pass.
    """
    values = gradients()
    with torch.no_grad():
        first = [None if own.grad is None else own.grad.clone() for own in parameters]
        shift = gamma / length_of([own for own in first if own is not None])
        by = [None if own is None else shift * own for own in first]
    with moved(parameters, by):
        gradients()
    for parameter, own in zip(parameters, first, strict=True):
        if own is not None and parameter.grad is not None:
            parameter.grad.sub_(own).mul_(weight / gamma).add_(own)
    return values
