"""The logit alone (Zhao, Liu and Larson 2021): its gradient does not vanish as the class becomes certain."""

from torch import Tensor

from align_core.attacks.objectives import logit_of


def logit(logits_NK: Tensor, labels_N: Tensor, wanted_N: Tensor | None) -> Tensor:
    """Minus the label's logit, or the wanted class's, [N]."""
    return -logit_of(logits_NK, labels_N) if wanted_N is None else logit_of(logits_NK, wanted_N)
