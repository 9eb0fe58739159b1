"""Relational knowledge distillation (RKD): distances and angles between the images of a batch (Park et al. 2019)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.losses.seen import Seen, features_of_both, unit

_LEAST = 1e-12


def rkd(source: Seen, witness: Seen, distance: float, angle: float) -> Tensor:
    """`distance` times the distance-wise loss plus `angle` times the angle-wise loss: a scalar.

    Distances between features are divided by their mean over a batch; angles are those at each image between the
    directions to all pairs of others, as cosines. Either is compared by the Huber loss with a threshold of 1, whose
    mean is over all B^2 or B^3 entries, those of an image with itself included, as in the authors' code.

    Memory grows as B^3: 64 MB per network for a batch of 256. Source: Park, Kim, Lu and Cho, CVPR 2019, 1904.05068.
    Raises ValueError where the features are not there.
    """
    source_BD, witness_BD = features_of_both(source, witness)
    loss = source_BD.new_zeros(())
    if distance:
        loss = loss + distance * F.smooth_l1_loss(_distances(source_BD), _distances(witness_BD))
    if angle:
        loss = loss + angle * F.smooth_l1_loss(_cosines(source_BD), _cosines(witness_BD))
    return loss


def _distances(features_BD: Tensor) -> Tensor:
    """Distances between all pairs, divided by the mean of those that are not of an image with itself."""
    squares_B = features_BD.square().sum(dim=1)
    squared_BB = squares_B[:, None] + squares_B[None] - 2 * features_BD @ features_BD.T
    off_BB = 1 - torch.eye(len(features_BD), device=features_BD.device)
    distances_BB = squared_BB.clamp_min(_LEAST).sqrt() * off_BB
    return distances_BB / (distances_BB.sum() / off_BB.sum().clamp_min(1)).clamp_min(_LEAST)


def _cosines(features_BD: Tensor) -> Tensor:
    """At each image, the cosine between the directions to every pair of others, [B, B, B]."""
    directions_BBD = unit(features_BD[None] - features_BD[:, None])
    return directions_BBD @ directions_BBD.transpose(1, 2)
