"""The symmetric Kullback-Leibler divergence between softened predictions, an alternative loss of Ma et al. (2024)."""

from torch import Tensor
from torch.nn import functional as F

from align_core.losses.seen import Seen, logits_of_both


def symkl(source: Seen, witness: Seen, temperature: float) -> Tensor:
    """T^2 times KL(witness || source) plus KL(source || witness) of softmax(logits / T), in nats: float32 [B].

    At a temperature of 1 it is the loss of the authors' research code, which adds both directions. The factor T^2 is
    that of `kl`, so that one learning rate fits all temperatures.

    Raises ValueError for logits of different shapes.
    """
    source_BK, witness_BK = logits_of_both(source, witness)
    source_log_BK = F.log_softmax(source_BK / temperature, dim=1)
    witness_log_BK = F.log_softmax(witness_BK / temperature, dim=1)
    # Both directions added: sum over classes of (p_witness - p_source) (log p_witness - log p_source).
    return ((witness_log_BK.exp() - source_log_BK.exp()) * (witness_log_BK - source_log_BK)).sum(dim=1) * temperature**2
