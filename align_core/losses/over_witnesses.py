"""How the losses of several witnesses are combined."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from align_core.losses import AlignmentLoss


def mean_over_witnesses(
    loss: "AlignmentLoss", source_logits_BK: Tensor, witness_logits: Sequence[Tensor], temperature: float
) -> Tensor:
    """The mean of `loss` over the witnesses, a float32 scalar.

    With the mean, rather than the sum, the loss keeps its size whatever the number of witnesses, and so one learning
    rate fits them all. Without any witness the loss is 0.

    Args:
        loss: an alignment loss from `losses.load_loss`.
        source_logits_BK: logits of the source.
        witness_logits: logits [B, K] of each witness.
        temperature: passed on to `loss`.
    """
    if not witness_logits:
        return source_logits_BK.new_zeros((), dtype=torch.float32)
    return torch.stack([loss(source_logits_BK, logits_BK, temperature) for logits_BK in witness_logits]).mean()
