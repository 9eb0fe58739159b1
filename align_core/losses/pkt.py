"""Probabilistic knowledge transfer (PKT): how alike the images of a batch are (Passalis and Tefas 2018)."""

import torch
from torch import Tensor

from align_core.losses.seen import Seen, features_of_both, unit

_LEAST = 1e-7  # of the authors' code: it keeps the logarithms finite


def pkt(source: Seen, witness: Seen) -> Tensor:
    """KL between the probabilities of picking one image, given another, from cosines of their features: a scalar.

    A cosine is shifted to [0, 1], and each row of the B x B matrix, the diagonal included, is divided by its sum. The
    mean is over all B^2 entries, as in the authors' code, so that the value is about 1 / B of a divergence per image:
    for alignment it needs a large `weight` (the code of Tian et al. 2020, 1910.10699, gives it 30,000).

    Source: Passalis and Tefas, ECCV 2018, 1803.10837. Raises ValueError where the features are not there.
    """
    source_BB, witness_BB = (_probabilities(own_BD) for own_BD in features_of_both(source, witness))
    return (witness_BB * torch.log((witness_BB + _LEAST) / (source_BB + _LEAST))).mean()


def _probabilities(features_BD: Tensor) -> Tensor:
    unit_BD = unit(features_BD)
    alike_BB = (unit_BD @ unit_BD.T + 1) / 2
    return alike_BB / alike_BB.sum(dim=1, keepdim=True)
