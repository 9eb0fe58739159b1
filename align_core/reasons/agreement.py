"""How alike two networks are on the same points: in their gradients, their predictions, and their first class.

Before and after an alignment, Ma et al. (2024) compare source and witness by these three. No function here needs a pass
of its own: logits and gradients come from `passes.gradients`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.reasons.passes import check_alike


def cosine(one_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
    """a.b / (|a| |b|) for each image, from -1 to 1: float64 [B]; NaN, a blank, where either is zero.

    Args:
        one_BCHW, other_BCHW: input gradients of two networks on the same points; or a perturbation and a gradient.

    Raises InputError for other shapes.
    """
    check_alike(one=one_BCHW, other=other_BCHW)
    one_BP, other_BP = one_BCHW.flatten(1).double(), other_BCHW.flatten(1).double()
    # One after the other, so that a product of two small lengths is not lost. Zero over zero is NaN.
    one_BP = one_BP / one_BP.norm(dim=1, keepdim=True)
    other_BP = other_BP / other_BP.norm(dim=1, keepdim=True)
    cosine_B: Tensor = (one_BP * other_BP).sum(dim=1).clamp(-1, 1)
    return cosine_B


def prediction_divergence(reference_BK: Tensor, own_BK: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(reference || own) = sum_k p_k log(p_k / q_k) of softmax(logits / T), in nats: float64 [B].

    It is that of the alignment loss, witness || source, but without the loss's factor T^2: the divergence itself.

    Args:
        reference_BK: logits of the witness, or of a target.
        own_BK: logits of the surrogate.
        temperature: T, above 0.

    Raises InputError for other shapes, fewer than two classes or another temperature, and FloatingPointError for logits
    that are not finite.
    """
    check_alike(reference=reference_BK, own=own_BK)
    reference_log_BK = log_probabilities(reference_BK, temperature)
    own_log_BK = log_probabilities(own_BK, temperature)
    found_B: Tensor = F.kl_div(own_log_BK, reference_log_BK, reduction="none", log_target=True).sum(dim=1)
    return found_B.clamp_min(0)  # rounding can leave it at -1e-17 where both are equal


def top1_agreement(one_BK: Tensor, other_BK: Tensor) -> Tensor:
    """Whether two networks put the same class first: bool [B].

    Raises InputError for other shapes, and FloatingPointError for logits that are not finite.
    """
    check_alike(one=one_BK, other=other_BK)
    check_logits_finite(one_BK)
    check_logits_finite(other_BK)
    return one_BK.argmax(dim=1) == other_BK.argmax(dim=1)


def log_probabilities(logits_BK: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / T), float64 [B, K]; raises what `prediction_divergence` raises for one network."""
    if logits_BK.ndim != 2 or logits_BK.shape[1] < 2:
        raise InputError(f"logits must be [B, K] with at least two classes, not of shape {tuple(logits_BK.shape)}")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature must be a number above 0, not {temperature}")
    check_logits_finite(logits_BK)
    return F.log_softmax(logits_BK.double() / temperature, dim=1)


def check_logits_finite(logits_BK: Tensor) -> None:
    """Raises FloatingPointError, with the rows, where logits are not finite: the argmax of NaN would be class 0."""
    fine_B = torch.isfinite(logits_BK).all(dim=1)
    if not fine_B.all():
        rows = (~fine_B).nonzero()[:, 0].tolist()
        raise FloatingPointError(f"logits are not finite in {len(rows)} rows: {rows[:5]}")
