"""The margin of the logits (Carlini and Wagner 2017), without its cut-off."""

from torch import Tensor

from align_core.attacks.objectives import logit_of, others_of


def margin(logits_NK: Tensor, labels_N: Tensor, wanted_N: Tensor | None) -> Tensor:
    """The largest other logit minus the label's; or the wanted class's minus the largest other, [N]."""
    classes_N = labels_N if wanted_N is None else wanted_N
    lead_N = others_of(logits_NK, classes_N).amax(dim=1) - logit_of(logits_NK, classes_N)
    return lead_N if wanted_N is None else -lead_N
