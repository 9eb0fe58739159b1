"""What an attack climbs: a value per image, larger when the surrogate is further from the label."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with the label, [B], in nats."""
    return F.cross_entropy(logits_BK, labels_B, reduction="none")


def margin(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Largest other logit minus the label's, [B] (Carlini and Wagner 2017, without the cut-off)."""
    label_BK = F.one_hot(labels_B, logits_BK.shape[1]).bool()
    others_B = logits_BK.masked_fill(label_BK, -torch.inf).max(dim=1).values
    return others_B - logits_BK.gather(1, labels_B[:, None])[:, 0]


OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy, "margin": margin}
