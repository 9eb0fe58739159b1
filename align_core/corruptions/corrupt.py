"""Puts a common corruption on images."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from align_core.corruptions import blur, colour, detail, noise
from align_core.corruptions.known import Corruption, check_corruption, strength
from align_core.errors import InputError
from align_core.images.decoding import Pixels

_FUNCTIONS = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "gaussian_blur": blur.gaussian_blur,
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "saturate": colour.saturate,
    "pixelate": detail.pixelate,
    "jpeg": detail.jpeg,
}


def corrupted(images_BCHW: Pixels, image_ids: Sequence[str], corruption: Corruption, seed: int) -> Pixels:
    """Images with a corruption, rounded to 8 bits: the published script cuts off what is below the point.

    Args:
        images_BCHW: uint8, of one or three channels.
        image_ids: an id per image. With the seed, the corruption's name and its severity they decide its random
            numbers, so that an image is the same in every chunk, for every network.
        corruption: which, and how strong.
        seed: of the random numbers.

    Raises InputError for other images, and for a corruption that there is not.
    """
    check_corruption(*corruption)
    if images_BCHW.dtype != np.uint8 or images_BCHW.ndim != 4 or images_BCHW.shape[1] not in (1, 3):
        raise InputError(f"images must be uint8 [B, 1 or 3, H, W], not {images_BCHW.dtype} {images_BCHW.shape}")
    if len(image_ids) != len(images_BCHW):
        raise InputError(f"{len(images_BCHW)} images need as many ids, not {len(image_ids)}")
    strong = strength(corruption, max(images_BCHW.shape[2:]))
    made = np.empty_like(images_BCHW)
    for row, image_id in enumerate(image_ids):
        pixels_CHW = images_BCHW[row].astype(np.float64) / 255
        rng = _generator(seed, corruption, image_id)
        made[row] = np.round(np.clip(_FUNCTIONS[corruption.name](pixels_CHW, strong, rng), 0, 1) * 255)
    return made


def _generator(seed: int, corruption: Corruption, image_id: str) -> np.random.Generator:
    """The random numbers of one image."""
    key = sha256(f"{seed}/{corruption}/{image_id}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(list(key))
