"""The probability of a class, of which MIG integrates the gradients (Ma et al. 2023)."""

from torch import Tensor

from align_core.attacks.objectives import logit_of


def probability(logits_NK: Tensor, labels_N: Tensor, wanted_N: Tensor | None) -> Tensor:
    """Minus the label's probability, or the wanted class's, [N]."""
    probabilities_NK = logits_NK.softmax(dim=1)
    return -logit_of(probabilities_NK, labels_N) if wanted_N is None else logit_of(probabilities_NK, wanted_N)
