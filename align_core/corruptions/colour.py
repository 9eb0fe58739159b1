"""Brightness, contrast and saturation. Pixels are float64 [C, H, W] in [0, 1].

In hue, saturation and value, the value is the largest channel, and the saturation is the share by which the smallest is
below it. A change of both moves every channel on the line between the value and itself, so that no hue is needed.
"""

from typing import Any

import numpy as np

from align_core.corruptions.noise import Array


def brightness(pixels_CHW: Array, added: Any, _rng: np.random.Generator) -> Array:
    """Adds to the value, up to 1, and keeps hue and saturation. Black becomes grey."""
    value_HW = pixels_CHW.max(axis=0)
    lighter_HW = np.minimum(value_HW + added, 1)
    shares_CHW = np.divide(pixels_CHW, value_HW, out=np.ones_like(pixels_CHW), where=value_HW > 0)
    lighter_CHW: Array = shares_CHW * lighter_HW
    return lighter_CHW


def contrast(pixels_CHW: Array, share: Any, _rng: np.random.Generator) -> Array:
    """Shrinks the distance of each pixel from its channel's mean."""
    mean_C11 = pixels_CHW.mean(axis=(1, 2), keepdims=True)
    flatter_CHW: Array = (pixels_CHW - mean_C11) * share + mean_C11
    return flatter_CHW


def saturate(pixels_CHW: Array, change: Any, _rng: np.random.Generator) -> Array:
    """Multiplies the saturation and adds to it, within 0 and 1. Pixels without a hue turn red where it is added to.

    Grey images have no saturation, and stay as they are.
    """
    if len(pixels_CHW) == 1:
        return pixels_CHW
    factor, added = change
    value_HW = pixels_CHW.max(axis=0)
    distance_CHW = value_HW - pixels_CHW
    largest_HW = distance_CHW.max(axis=0)
    saturation_HW = np.divide(largest_HW, value_HW, out=np.zeros_like(value_HW), where=value_HW > 0)
    wanted_HW = np.clip(saturation_HW * factor + added, 0, 1)
    red_CHW = np.broadcast_to(np.array([0.0, 1.0, 1.0])[:, None, None], pixels_CHW.shape)
    shape_CHW = np.divide(distance_CHW, largest_HW, out=red_CHW.copy(), where=largest_HW > 0)
    coloured_CHW: Array = value_HW * (1 - wanted_HW * shape_CHW)
    return coloured_CHW
