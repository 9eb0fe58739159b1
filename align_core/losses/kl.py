"""The Kullback-Leibler divergence between softened predictions: the loss of model alignment (Ma et al. 2024)."""

from torch import Tensor
from torch.nn import functional as F


def kl(source_logits_BK: Tensor, witness_logits_BK: Tensor, temperature: float) -> Tensor:
    """T^2 KL(witness || source) of softmax(logits / T), in nats: summed over classes, averaged over the batch.

    The gradient of the divergence shrinks as 1 / T^2. The factor T^2 makes up for that, so that one learning rate and
    one weight fit all temperatures (Hinton, Vinyals and Dean 2015, section 2; Ma et al. 2024).

    Args:
        source_logits_BK, witness_logits_BK: logits of any floating-point type; the loss is computed in float32.
        temperature: T, above 0.

    Returns a float32 scalar. Raises ValueError for logits of different shapes, which would be broadcast.
    """
    if source_logits_BK.shape != witness_logits_BK.shape:
        shapes = tuple(source_logits_BK.shape), tuple(witness_logits_BK.shape)
        raise ValueError(f"source and witness must have logits of one shape [B, K], not {shapes[0]} and {shapes[1]}")
    source_log_BK = F.log_softmax(source_logits_BK.float() / temperature, dim=1)
    witness_log_BK = F.log_softmax(witness_logits_BK.float() / temperature, dim=1)
    return F.kl_div(source_log_BK, witness_log_BK, reduction="batchmean", log_target=True) * temperature**2
