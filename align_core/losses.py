"""Alignment losses: how far the source's predictions are from the witness's. One small function each, by name."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

AlignmentLoss = Callable[[Tensor, Tensor, float], Tensor]


def kl(source_logits_BK: Tensor, witness_logits_BK: Tensor, temperature: float) -> Tensor:
    """KL(witness || source) of softmax(logits / T), times T squared: summed over classes, mean over the batch (nats).

    T squared keeps the gradient's size comparable between temperatures (Hinton, Vinyals and Dean 2015, section 2;
    Ma et al. 2024). Computed in float32 whatever the logits are.
    """
    source_log_BK = F.log_softmax(source_logits_BK.float() / temperature, dim=1)
    witness_log_BK = F.log_softmax(witness_logits_BK.float() / temperature, dim=1)
    return F.kl_div(source_log_BK, witness_log_BK, reduction="batchmean", log_target=True) * temperature**2


LOSSES: dict[str, AlignmentLoss] = {"kl": kl}


def mean_over_witnesses(
    loss: AlignmentLoss, source_logits_BK: Tensor, witness_logits: Sequence[Tensor], temperature: float
) -> Tensor:
    """Mean of `loss` over the witnesses, each with logits [B, K]; zero where there is no witness."""
    if not witness_logits:
        return source_logits_BK.new_zeros((), dtype=torch.float32)
    return torch.stack([loss(source_logits_BK, logits_BK, temperature) for logits_BK in witness_logits]).mean()
