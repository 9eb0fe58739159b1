"""CutMix: a box of each image is replaced by that of another (Yun et al., ICCV 2019, 1905.04899)."""

import torch
from torch import Tensor

from align_core.refinements.mixed import Mixed, draw


def cutmix(images_BCHW: Tensor, labels_B: Tensor, alpha: float) -> Mixed:
    """Replaces the same box of all images by that of another image of the batch.

    The area of the box is drawn from Beta(alpha, alpha), and its centre evenly; where the box is cut off at an edge,
    the share follows the area that is left.
    """
    share, partner_B = draw(len(images_BCHW), alpha, images_BCHW.device)
    height, width = images_BCHW.shape[2:]
    side = (1 - share) ** 0.5
    middle_y, middle_x = (torch.rand(2) * torch.tensor([height, width])).int().tolist()
    half_y, half_x = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(0, middle_y - half_y), min(height, middle_y + half_y)
    left, right = max(0, middle_x - half_x), min(width, middle_x + half_x)
    mixed_BCHW = images_BCHW.clone()
    mixed_BCHW[:, :, top:bottom, left:right] = images_BCHW[partner_B][:, :, top:bottom, left:right]
    return Mixed(mixed_BCHW, labels_B[partner_B], 1 - (bottom - top) * (right - left) / (height * width))
