"""What loses detail: few pixels, and JPEG. Pixels are float64 [C, H, W] in [0, 1]."""

from typing import Any

import numpy as np
from PIL import Image

from align_core.corruptions.noise import Array
from align_core.defences.jpeg import through_jpeg


def pixelate(pixels_CHW: Array, share: Any, _rng: np.random.Generator) -> Array:
    """Shrinks the image to this share of its sides and enlarges it again, both by means over boxes."""
    height, width = pixels_CHW.shape[1:]
    small = max(1, int(width * share)), max(1, int(height * share))
    resized = [
        np.asarray(channel.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX))
        for channel in map(Image.fromarray, _levels(pixels_CHW))
    ]
    return np.stack(resized).astype(np.float64) / 255


def jpeg(pixels_CHW: Array, quality: Any, _rng: np.random.Generator) -> Array:
    """Stores the image as JPEG of this quality, and reads it again."""
    decoded_CHW = through_jpeg(_levels(pixels_CHW).transpose(1, 2, 0), int(quality))
    return decoded_CHW.astype(np.float64) / 255


def _levels(pixels_CHW: Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The 8-bit values, which the pixels were read from."""
    return np.round(pixels_CHW * 255).astype(np.uint8)
