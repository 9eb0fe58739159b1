"""Logit calibration by temperature (Weng, Luo, Lin and Zhong 2023), which goes on widening the margin."""

from torch import Tensor

from align_core.attacks.objectives.cross_entropy import cross_entropy


def logit_margin(logits_NK: Tensor, labels_N: Tensor, wanted_N: Tensor | None, temperature: float) -> Tensor:
    """Cross-entropy, at the temperature, with the label; or minus that with the wanted class, [N]."""
    return cross_entropy(logits_NK / temperature, labels_N, wanted_N)
