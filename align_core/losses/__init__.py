"""Alignment losses: how far the source's predictions are from a witness's.

A loss is a function in a file of its own, both called by the loss's name, and a line in `LOSSES`. The names can be
read without importing torch.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    AlignmentLoss = Callable[[Tensor, Tensor, float], Tensor]

LOSSES = {"kl": "T^2 KL(witness || source) of softmax(logits / T): model alignment (Ma et al. 2024)"}
"""Every loss by its name, with a line that says what it is."""


def load_loss(name: str) -> "AlignmentLoss":
    """The loss of this name: (source logits [B, K], witness logits [B, K], temperature) -> scalar in float32.

    Raises KeyError for a name that is not in `LOSSES`.
    """
    if name not in LOSSES:
        raise KeyError(name)
    loss: AlignmentLoss = getattr(import_module(f"align_core.losses.{name}"), name)
    return loss
