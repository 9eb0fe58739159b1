"""The mean absolute difference of logits, an alternative loss of Ma et al. (2024), whose code calls it `tv`."""

from torch import Tensor

from align_core.losses.seen import Seen, logits_of_both


def l1(source: Seen, witness: Seen) -> Tensor:
    """The absolute difference of the raw logits, averaged over classes: float32 [B].

    Raises ValueError for logits of different shapes.
    """
    source_BK, witness_BK = logits_of_both(source, witness)
    return (source_BK - witness_BK).abs().mean(dim=1)
