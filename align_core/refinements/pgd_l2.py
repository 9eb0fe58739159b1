"""PGD in the l2 ball on the source in training: slight adversarial training (Springer et al. 2021)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.refinements.at import At, gradient_in


def pgd_l2(at: At, eps: float, reach: float, steps: int) -> Tensor:
    """The images after PGD in the l2 ball of radius `eps` against their labels, on the source as it stands.

    Steps have a length of `reach` * eps / `steps`, and start at the images: by default 3 steps of 2/3 eps, those of a
    public training of such networks.
    """
    moved_BCHW = torch.zeros_like(at.images_BCHW)
    for _ in range(steps):
        gradient_BCHW = gradient_in(
            at.network,
            at.images_BCHW + moved_BCHW,
            lambda logits_BK: F.cross_entropy(logits_BK, at.labels_B, reduction="none"),
        )
        moved_BCHW = moved_BCHW + reach * eps / steps * F.normalize(gradient_BCHW.flatten(1)).view_as(moved_BCHW)
        length_B = moved_BCHW.flatten(1).norm(dim=1).clamp_min(max(eps, 1e-12))
        moved_BCHW = moved_BCHW * (eps / length_B)[:, None, None, None]
        moved_BCHW = (at.images_BCHW + moved_BCHW).clamp(0, 1) - at.images_BCHW
    return at.images_BCHW + moved_BCHW
