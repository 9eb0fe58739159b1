"""The Kullback-Leibler divergence between softened predictions: the loss of model alignment (Ma et al. 2024)."""

from torch import Tensor
from torch.nn import functional as F

from align_core.losses.seen import Seen, logits_of_both


def kl(source: Seen, witness: Seen, temperature: float) -> Tensor:
    """T^2 KL(witness || source) of softmax(logits / T), in nats, summed over classes: float32 [B].

    The gradient of the divergence shrinks as 1 / T^2. The factor T^2 makes up for that, so that one learning rate and
    one weight fit all temperatures (Hinton, Vinyals and Dean 2015, section 2; Ma et al. 2024).

    Args:
        source, witness: their logits may be of any floating-point type; the loss is computed in float32.
        temperature: T, above 0.

    Raises ValueError for logits of different shapes.
    """
    source_BK, witness_BK = logits_of_both(source, witness)
    source_log_BK = F.log_softmax(source_BK / temperature, dim=1)
    witness_log_BK = F.log_softmax(witness_BK / temperature, dim=1)
    return F.kl_div(source_log_BK, witness_log_BK, reduction="none", log_target=True).sum(dim=1) * temperature**2
