"""Blur. Pixels are float64 [C, H, W] in [0, 1]."""

from typing import Any

import numpy as np

from align_core.corruptions.noise import Array


def gaussian_blur(pixels_CHW: Array, width: Any, _rng: np.random.Generator) -> Array:
    """Blurs with a normal kernel of this width in pixels, cut off at four of them. Border pixels go on outside."""
    from scipy.ndimage import gaussian_filter  # slow to import

    blurred: Array = gaussian_filter(pixels_CHW, sigma=(0, width, width), mode="nearest", truncate=4.0)
    return blurred
