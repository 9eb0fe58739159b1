"""Weights that are moved for one gradient, and put back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def length_of(gradients: Sequence[Tensor]) -> Tensor:
    """The l2 length of all gradients together; never 0."""
    lengths = torch.stack([torch.linalg.vector_norm(own) for own in gradients])
    length: Tensor = torch.linalg.vector_norm(lengths)
    return length.clamp_min(1e-12)


@contextmanager
def moved(parameters: Sequence[nn.Parameter], by: Sequence[Tensor | None]) -> Iterator[None]:
    """Adds to the parameters, and puts back the very bits that they had."""
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, own in zip(parameters, by, strict=True):
            if own is not None:
                parameter.add_(own)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
