"""Poincaré distance and triplet loss, Po+Trip (Li, Deng, Li, Yang, Gao and Huang 2020)."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SOFT = 1e-5  # the wanted class is a point just inside of the unit ball, where distances are finite


def po_trip(logits_NK: Tensor, labels_N: Tensor, wanted_N: Tensor | None, weight: float, margin: float) -> Tensor:
    """Minus the distance of the logits to the wanted class, and minus `weight` times the triplet loss, [N].

    Args:
        logits_NK: the surrogate's.
        labels_N: the classes to leave.
        wanted_N: the classes to lead to.
        weight: of the triplet loss.
        margin: by how much the wanted class must be nearer than the label, in |cosine|.
    """
    assert wanted_N is not None
    wanted_NK = F.one_hot(wanted_N, logits_NK.shape[1]).to(logits_NK)
    point_NK = logits_NK / logits_NK.abs().sum(dim=1, keepdim=True)
    goal_NK = (wanted_NK - _SOFT).clamp_min(0)
    outside_N = (1 - point_NK.square().sum(dim=1)) * (1 - goal_NK.square().sum(dim=1))
    distance_N = torch.acosh(1 + 2 * (point_NK - goal_NK).square().sum(dim=1) / outside_N)
    cosine_NK = logits_NK.abs() / logits_NK.norm(dim=1, keepdim=True)
    label_N, goal_N = (cosine_NK.gather(1, classes_N[:, None])[:, 0] for classes_N in (labels_N, wanted_N))
    value_N: Tensor = -distance_N - weight * (label_N - goal_N + margin).clamp_min(0)
    return value_N
