"""Spectrum simulation, SSA (Long et al. 2022, equation 5)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from align_core.attacks.views import Rows
from align_core.randomness import normal, part_keys, uniform


def spectrum(rows: Rows, rho: float, noise: float) -> Tensor:
    """Adds Gaussian noise of `noise` units of eps, and scales each frequency by a factor from [1 - rho, 1 + rho]."""
    shape = rows.images_NCHW.shape[1:]
    noise_NCHW = normal(part_keys(rows.keys_N, 0, "noise"), shape)
    factors_NCHW = frequency_factors(part_keys(rows.keys_N, 0, "mask"), shape, rho)
    return frequencies_scaled(rows.images_NCHW + noise * rows.unit * noise_NCHW, factors_NCHW)


def frequency_factors(keys_N: Tensor, shape: Sequence[int], rho: float) -> Tensor:
    """A factor from [1 - rho, 1 + rho] for each frequency of images of this shape, float32 [N, C, H, W]."""
    return 1 - rho + 2 * rho * uniform(keys_N, shape)


def frequencies_scaled(images_NCHW: Tensor, factors_NCHW: Tensor) -> Tensor:
    """Multiplies each coefficient of the cosine transform of each channel by its factor."""
    rows_HH, columns_WW = (cosine_matrix(side).to(images_NCHW) for side in images_NCHW.shape[2:])
    return rows_HH.T @ (factors_NCHW * (rows_HH @ images_NCHW @ columns_WW.T)) @ columns_WW


def cosine_matrix(side: int) -> Tensor:
    """The orthonormal discrete cosine transform of type II as a matrix, float64 [side, side]: frequencies by pixels."""
    frequency_S, pixel_S = torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64) + 0.5
    matrix_SS = torch.cos(math.pi / side * frequency_S[:, None] * pixel_S) * math.sqrt(2 / side)
    matrix_SS[0] /= math.sqrt(2)
    return matrix_SS
