"""Alignment losses, which measure how far the source's predictions are from a witness's.

A new loss is a file in this folder with a function in it, both named after the loss, and an entry in `LOSSES`. The
names can be read without importing torch.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    AlignmentLoss = Callable[[Tensor, Tensor, float], Tensor]

LOSSES = {"kl": "T^2 KL(witness || source) of softmax(logits / T): model alignment (Ma et al. 2024)"}
"""A description of every alignment loss, by name. `witness list losses` prints it."""


def load_loss(name: str) -> "AlignmentLoss":
    """Imports the loss of this name.

    Returns a function of source logits [B, K], witness logits [B, K] and temperature, whose result is a float32 scalar.
    Raises KeyError for a name that is not in `LOSSES`.
    """
    if name not in LOSSES:
        raise KeyError(name)
    loss: AlignmentLoss = getattr(import_module(f"align_core.losses.{name}"), name)
    return loss
