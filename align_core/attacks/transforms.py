"""Random transformations of the images before their gradient is computed. Each image draws from its own key."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.randomness import uniform


def resize_and_pad(images_BCHW: Tensor, keys_B: Tensor, probability: float, smallest: float) -> Tensor:
    """Diverse inputs (Xie et al. 2019): shrinks images at random and places them at random on a black background.

    Every image has a size and a position of its own. They are applied in one bilinear sampling of the whole batch,
    rather than image by image, because that is much faster.

    Args:
        images_BCHW: float pixels.
        keys_B: a random key per image, int64 [B].
        probability: chance of each image to be transformed; otherwise it is returned as it is.
        smallest: smallest side after shrinking, as a share of the side, rounded down to whole pixels.

    Returns images of the same shape.
    """
    batch, _, height, width = images_BCHW.shape
    draws_B4 = uniform(keys_B, (4,))
    applies_B = draws_B4[:, 3] < probability
    axes = []
    for length, place_B in ((width, draws_B4[:, 1]), (height, draws_B4[:, 2])):
        lowest = max(1, int(smallest * length))
        side_B = lowest + (draws_B4[:, 0] * (length - lowest)).floor()  # uniform over lowest, ..., length - 1
        first_B = (place_B * (length - side_B + 1)).floor()
        pixel_L = torch.arange(length, device=images_BCHW.device) + 0.5
        axes.append(2 * (pixel_L[None, :] - first_B[:, None]) / side_B[:, None] - 1)
    x_BHW = axes[0][:, None, :].expand(batch, height, width)
    y_BHW = axes[1][:, :, None].expand(batch, height, width)
    grid_BHW2 = torch.stack([x_BHW, y_BHW], dim=-1)
    moved_BCHW = F.grid_sample(images_BCHW, grid_BHW2, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.where(applies_B[:, None, None, None], moved_BCHW, images_BCHW)
