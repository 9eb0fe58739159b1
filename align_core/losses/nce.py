"""The contrastive loss of compositional contrastive learning (Chen et al., CVPR 2021, 2104.10955), by the labels."""

import torch
from torch import Tensor

from align_core.losses.seen import Seen, features_of_both, unit

_LEAST = 1e-10  # of the authors' code: it keeps the logarithms finite


def nce(source: Seen, witness: Seen, sharpness: float) -> Tensor:
    """How much more an image's source features are like witness features of its class than like those of others.

    For each image i, cosines between its source features and the witness features of all images j of the batch make
    probabilities P_ij by a softmax at temperature `sharpness`. The loss is the mean of -log P_ij over the images of the
    same class, i itself included, plus the mean of -log(1 - P_ij) over those of other classes: a scalar, averaged over
    i. Where a batch has no other class, the second mean is 0. Ma et al. (2024) use it at 0.1.

    Raises ValueError where features or labels are not there, or widths differ.
    """
    source_BD, witness_BD = features_of_both(source, witness)
    if source.labels_B is None:
        raise ValueError("nce compares images by their labels, and there are none")
    if source_BD.shape != witness_BD.shape:
        raise ValueError(f"features of widths {source_BD.shape[1]} and {witness_BD.shape[1]} have no cosine")
    same_BB = (source.labels_B[:, None] == source.labels_B[None]).float()
    picked_BB = torch.softmax(unit(source_BD) @ unit(witness_BD).T / sharpness, dim=1)
    towards_B = (-torch.log(picked_BB + _LEAST) * same_BB).sum(dim=1) / same_BB.sum(dim=1)
    other_BB = 1 - same_BB
    away_B = (-torch.log(1 - picked_BB + _LEAST) * other_BB).sum(dim=1) / other_BB.sum(dim=1).clamp_min(1)
    return (towards_B + away_B).mean()
