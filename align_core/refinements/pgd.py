"""PGD on the source in training, one of the perturbed inputs of Ma et al. (2024)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.refinements.at import At, gradient_in, within


def pgd(at: At, eps: float, step: float, steps: int) -> Tensor:
    """The images after PGD against their labels on the source as it stands, from a random start (Madry et al. 2018).

    As in the code of Ma et al. (2024): the source predicts in eval mode meanwhile, and the last point is taken, at
    which source and witnesses are then compared.
    """
    centre_BCHW = at.images_BCHW
    now_BCHW = within(centre_BCHW + eps * (2 * torch.rand_like(centre_BCHW) - 1), centre_BCHW, eps)
    for _ in range(steps):
        gradient_BCHW = gradient_in(
            at.network, now_BCHW, lambda logits_BK: F.cross_entropy(logits_BK, at.labels_B, reduction="none")
        )
        now_BCHW = within(now_BCHW + step * gradient_BCHW.sign(), centre_BCHW, eps)
    return now_BCHW
