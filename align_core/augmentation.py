"""Augmentation of training images: crops and flips, drawn from each image's own key."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.align_config import AugmentConfig
from align_core.errors import InputError
from align_core.images import ImageSet, read_images
from align_core.images.decoding import BadImage, Pixels
from align_core.randomness import image_keys, part_keys, uniform

_PAD = 4
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


class Drawn(NamedTuple):
    """Images that have been read, and what was drawn for each: all that `arranged` needs on another device.

    Args:
        pixels_BCHW: uint8, cropped already where the crop is `random_resized`.
        draws_B5: of these numbers in [0, 1), the first two place a padded crop, and the last decides the flip.
    """

    pixels_BCHW: Tensor
    draws_B5: Tensor


def augmented(images: ImageSet, image_ids: Sequence[str], config: AugmentConfig, seed: int, epoch: int) -> Tensor:
    """Reads images, crops and flips each at random.

    An image's crop and flip depend on (seed, epoch, image id) alone, so that a resumed run, or one with more workers,
    augments it in the same way.

    Args:
        images: the image set; `random_resized` crops its pictures at their own size, other crops the fitted images.
        image_ids: B ids.
        config: which crop, and whether to flip.
        seed, epoch: of the random choices.

    Returns float pixels [B, C, H, W] in [0, 1]. Raises InputError, naming the image, where one is unreadable.
    """
    return arranged(drawn(images, image_ids, config, seed, epoch), config)


def drawn(images: ImageSet, image_ids: Sequence[str], config: AugmentConfig, seed: int, epoch: int) -> Drawn:
    """The first half of `augmented`, which reads and decodes: 8-bit pixels, a quarter of what goes into the step."""
    keys_B = image_keys(seed, image_ids)
    draws_B5 = uniform(part_keys(keys_B, epoch, "augmentation"), (5,))
    if config.crop == "random_resized":
        pixels = _resized_crops(images, image_ids, part_keys(keys_B, epoch, "random_resized"))
    else:
        pixels = read_images(images, image_ids)
    return Drawn(torch.from_numpy(pixels), draws_B5)


def arranged(drawn: Drawn, config: AugmentConfig) -> Tensor:
    """The second half, on the device where the tensors are: float pixels [B, C, H, W] in [0, 1]."""
    pixels_BCHW, draws_B5 = drawn
    if config.crop == "pad4":
        pixels_BCHW = _padded_crop(pixels_BCHW, draws_B5)
    if config.flip:
        pixels_BCHW = torch.where(draws_B5[:, 4, None, None, None] < 0.5, pixels_BCHW.flip(3), pixels_BCHW)
    return pixels_BCHW.to(torch.float32) / 255


def _padded_crop(pixels_BCHW: Tensor, draws_B5: Tensor) -> Tensor:
    """Random crops of the original size out of images padded with black."""
    channels, height, width = pixels_BCHW.shape[1:]
    padded_BCHW = F.pad(pixels_BCHW, (_PAD,) * 4)
    top_B, left_B = (draws_B5[:, :2] * (2 * _PAD + 1)).long().T
    rows_BH = top_B[:, None] + torch.arange(height, device=top_B.device)
    columns_BW = left_B[:, None] + torch.arange(width, device=left_B.device)
    wide_BCHW = padded_BCHW.gather(2, rows_BH[:, None, :, None].expand(-1, channels, -1, padded_BCHW.shape[3]))
    return wide_BCHW.gather(3, columns_BW[:, None, None, :].expand(-1, channels, height, -1))


def _resized_crops(images: ImageSet, image_ids: Sequence[str], keys_B: Tensor) -> Pixels:
    """A random crop of each picture, resized to the set's size with its interpolation: uint8 [B, C, size, size]."""
    crops = []
    for image_id, draws in zip(image_ids, uniform(keys_B, (_ATTEMPTS, 4)).tolist(), strict=True):
        try:
            picture = images.picture(image_id)
        except BadImage as problem:
            raise InputError(f"image {image_id}: {problem}") from problem
        crops.append(images.fit.apply_to_box(picture, random_box(picture.width, picture.height, draws)))
    return np.stack(crops)


def random_box(width: int, height: int, draws: Sequence[Sequence[float]]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a random crop: 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3.

    This is the augmentation of Szegedy et al. (2015) with the parameters and the rounding of torchvision's
    RandomResizedCrop.

    Args:
        width, height: of the picture.
        draws: attempts, each of four numbers in [0, 1): area, ratio, top, left. The first whose crop lies within the
            picture counts. If none does, the crop is the largest one in the centre whose ratio is allowed.
    """
    low, high = map(math.log, _RATIO)
    for of_area, of_ratio, of_top, of_left in draws:
        area = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * of_area)
        ratio = math.exp(low + (high - low) * of_ratio)
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(of_left * (width - across + 1)), int(of_top * (height - down + 1))
            return left, top, left + across, top + down
    across = min(width, round(height * _RATIO[1]))
    down = min(height, round(width / _RATIO[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
