"""What a network makes of a batch of images, as the alignment losses compare it."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align_core.losses.known import LOSSES


class Seen(NamedTuple):
    """What one network makes of B images.

    Args:
        logits_BK: its logits.
        features_BD: what its last layer takes; None where no loss asks for it.
        places_BKHW: the logits that its last layer makes of each place of its last feature map; None where no loss asks
            for them.
        labels_B: the labels of the images.
    """

    logits_BK: Tensor
    features_BD: Tensor | None = None
    places_BKHW: Tensor | None = None
    labels_B: Tensor | None = None


AlignmentLoss = Callable[[Seen, Seen], Tensor]
"""What the source and the witness see of the same images, to a loss: float32 [B], or a scalar of the whole batch."""


def load_loss(loss: Mapping[str, Any], temperature: float) -> AlignmentLoss:
    """Imports the function of a loss, with its settings.

    Args:
        loss: as `known.read_loss` returns it. Its weight is left to the caller.
        temperature: of losses that soften predictions.
    """
    name = loss["name"]
    settings = {key: loss[key] for key in LOSSES[name].settings}
    if LOSSES[name].tempered:
        settings["temperature"] = temperature
    return partial(getattr(import_module(f"align_core.losses.{name}"), name), **settings)


def logits_of_both(source: Seen, witness: Seen) -> tuple[Tensor, Tensor]:
    """The logits of source and witness, [B, K] in float32.

    Raises ValueError where they are of different shapes, which would be broadcast.
    """
    if source.logits_BK.shape != witness.logits_BK.shape:
        shapes = tuple(source.logits_BK.shape), tuple(witness.logits_BK.shape)
        raise ValueError(f"source and witness must have logits of one shape [B, K], not {shapes[0]} and {shapes[1]}")
    return source.logits_BK.float(), witness.logits_BK.float()


def features_of_both(source: Seen, witness: Seen) -> tuple[Tensor, Tensor]:
    """The features of source and witness, [B, D] in float32. Raises ValueError where they are not there."""
    if source.features_BD is None or witness.features_BD is None:
        raise ValueError("this loss compares features, and the networks' features are not there")
    return source.features_BD.float(), witness.features_BD.float()


def unit(features_BD: Tensor, least: Tensor | float = 1e-12) -> Tensor:
    """Features divided by their length, along the last dimension.

    Where the length is not above `least` they have no direction: they become zero, and get no gradient, which would be
    as steep as 1 / length and outweigh that of all other images.
    """
    length: Tensor = torch.linalg.vector_norm(features_BD, dim=-1, keepdim=True)
    has_direction = length > least
    return torch.where(has_direction, features_BD, 0) / torch.where(has_direction, length, 1)
