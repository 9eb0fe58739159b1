"""Noise. Pixels are float64 [C, H, W] in [0, 1]; what leaves this range is cut off by the caller."""

from typing import Any

import numpy as np

Array = np.ndarray


def gaussian_noise(pixels_CHW: Array, deviation: Any, rng: np.random.Generator) -> Array:
    """Adds to each value a normal one of this standard deviation."""
    noisy_CHW: Array = pixels_CHW + rng.normal(scale=deviation, size=pixels_CHW.shape)
    return noisy_CHW


def shot_noise(pixels_CHW: Array, photons: Any, rng: np.random.Generator) -> Array:
    """Draws each value from a Poisson distribution, where white is so many photons on average."""
    counted_CHW: Array = rng.poisson(pixels_CHW * photons) / float(photons)
    return counted_CHW


def impulse_noise(pixels_CHW: Array, share: Any, rng: np.random.Generator) -> Array:
    """Replaces this share of the values, half of them by black and half by white ("salt and pepper")."""
    drawn_CHW = rng.random(pixels_CHW.shape)
    return np.where(drawn_CHW < share / 2, 0.0, np.where(drawn_CHW < share, 1.0, pixels_CHW))
