"""Augmentation of training images: crops and flips, drawn from each image's own key."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.align_config import AugmentConfig
from align_core.randomness import uniform

_PAD = 4
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)


def augment(images_BCHW: Tensor, keys_B: Tensor, config: AugmentConfig) -> Tensor:
    """Crops and flips each image at random.

    Args:
        images_BCHW: float pixels.
        keys_B: int64 [B], a key per image (see `randomness`). An image's crop and flip depend on its key alone, so that
            a resumed run, or one with more workers, augments it in the same way.
        config: which crop, and whether to flip.

    Returns images of the same shape.
    """
    draws_B5 = uniform(keys_B, (5,))
    if config.crop == "pad4":
        images_BCHW = _padded_crop(images_BCHW, draws_B5)
    elif config.crop == "random_resized":
        images_BCHW = torch.stack(
            [_resized_crop(image, draws) for image, draws in zip(images_BCHW, draws_B5, strict=True)]
        )
    if config.flip:
        images_BCHW = torch.where(draws_B5[:, 4, None, None, None] < 0.5, images_BCHW.flip(3), images_BCHW)
    return images_BCHW


def _padded_crop(images_BCHW: Tensor, draws_B5: Tensor) -> Tensor:
    """Random crops of the original size out of images padded with black."""
    _, _, height, width = images_BCHW.shape
    padded_BCHW = F.pad(images_BCHW, (_PAD,) * 4)
    corners_B2 = (draws_B5[:, :2] * (2 * _PAD + 1)).long().tolist()
    pairs = zip(padded_BCHW, corners_B2, strict=True)
    return torch.stack([image[:, top : top + height, left : left + width] for image, (top, left) in pairs])


def _resized_crop(image_CHW: Tensor, draws_5: Tensor) -> Tensor:
    """Crops 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3 and resizes to the original size, antialiased.

    This is the augmentation of Szegedy et al. (2015), with torchvision's parameters.
    """
    _, height, width = image_CHW.shape
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * draws_5[0])
    low, high = torch.tensor(_RATIO).log()
    ratio = torch.exp(low + (high - low) * draws_5[1])
    across = int((area * ratio).sqrt().round().clamp(1, width))
    down = int((area / ratio).sqrt().round().clamp(1, height))
    top = int(draws_5[2] * (height - down + 1))
    left = int(draws_5[3] * (width - across + 1))
    crop_1CHW = image_CHW[None, :, top : top + down, left : left + across]
    return F.interpolate(crop_1CHW, (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
