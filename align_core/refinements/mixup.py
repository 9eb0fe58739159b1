"""Mixup: each image is averaged with another (Zhang et al., ICLR 2018, 1710.09412)."""

from torch import Tensor

from align_core.refinements.mixed import Mixed, draw


def mixup(images_BCHW: Tensor, labels_B: Tensor, alpha: float) -> Mixed:
    """Averages each image with another of the batch; all keep the same share, drawn from Beta(alpha, alpha)."""
    share, partner_B = draw(len(images_BCHW), alpha, images_BCHW.device)
    return Mixed(share * images_BCHW + (1 - share) * images_BCHW[partner_B], labels_B[partner_B], share)
