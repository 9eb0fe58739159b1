"""What becomes of the losses where there are several witnesses."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from align_core.losses import AlignmentLoss


def mean_over_witnesses(
    loss: "AlignmentLoss", source_logits_BK: Tensor, witness_logits: Sequence[Tensor], temperature: float
) -> Tensor:
    """Mean of `loss` over the witnesses, each with logits [B, K]; zero where there is no witness."""
    if not witness_logits:
        return source_logits_BK.new_zeros((), dtype=torch.float32)
    return torch.stack([loss(source_logits_BK, logits_BK, temperature) for logits_BK in witness_logits]).mean()
