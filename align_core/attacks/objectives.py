"""The functions that an attack maximises: one value per image, larger the further the surrogate is from the label."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with the label in nats, [B], computed as softplus(logsumexp of the other logits - label's logit).

    The usual form, logsumexp of all logits minus the label's, is equal to it in exact arithmetic. In float32 it loses
    the label's half of the gradient once p(label) rounds to 1, as for a third of CIFAR-10's test images on a ResNet-20.
    The attack is then weaker, by an amount that depends on the surrogate's confidence. Alignment changes that
    confidence, so the usual form would distort the comparison of surrogates.
    """
    label_B = logits_BK.gather(1, labels_B[:, None])[:, 0]
    return F.softplus(_others(logits_BK, labels_B).logsumexp(dim=1) - label_B)


def _others(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """The logits [B, K] with the label's replaced by minus infinity."""
    return logits_BK.masked_fill(F.one_hot(labels_B, logits_BK.shape[1]).bool(), -torch.inf)


def margin(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """The largest other logit minus the label's, [B]: the loss of Carlini and Wagner (2017) without its cut-off."""
    return _others(logits_BK, labels_B).amax(dim=1) - logits_BK.gather(1, labels_B[:, None])[:, 0]
