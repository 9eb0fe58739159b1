"""The Kullback-Leibler divergence of softened predictions: the loss of model alignment."""

from torch import Tensor
from torch.nn import functional as F


def kl(source_logits_BK: Tensor, witness_logits_BK: Tensor, temperature: float) -> Tensor:
    """KL(witness || source) of softmax(logits / T), times T squared: summed over classes, mean over the batch (nats).

    T squared keeps the gradient's size comparable between temperatures (Hinton, Vinyals and Dean 2015, section 2;
    Ma et al. 2024). Computed in float32 whatever the logits are.
    """
    source_log_BK = F.log_softmax(source_logits_BK.float() / temperature, dim=1)
    witness_log_BK = F.log_softmax(witness_logits_BK.float() / temperature, dim=1)
    return F.kl_div(source_log_BK, witness_log_BK, reduction="batchmean", log_target=True) * temperature**2
