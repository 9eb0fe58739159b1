"""Spectrum simulation, SSA (Long et al. 2022, equation 5)."""

import math

import torch
from torch import Tensor

from align_core.attacks.views import Rows
from align_core.randomness import normal, part_keys, uniform


def spectrum(rows: Rows, rho: float, noise: float) -> Tensor:
    """Adds Gaussian noise of `noise` units of eps, and scales each frequency by a factor from [1 - rho, 1 + rho]."""
    shape = rows.images_NCHW.shape[1:]
    noise_NCHW = normal(part_keys(rows.keys_N, 0, "noise"), shape)
    return frequencies_scaled(rows.images_NCHW + noise * rows.unit * noise_NCHW, part_keys(rows.keys_N, 0, "mask"), rho)


def frequencies_scaled(images_NCHW: Tensor, keys_N: Tensor, rho: float) -> Tensor:
    """Multiplies each coefficient of the cosine transform of each channel by a factor from [1 - rho, 1 + rho]."""
    rows_HH, columns_WW = (cosine_matrix(side).to(images_NCHW) for side in images_NCHW.shape[2:])
    factors_NCHW = 1 - rho + 2 * rho * uniform(keys_N, images_NCHW.shape[1:])
    return rows_HH.T @ (factors_NCHW * (rows_HH @ images_NCHW @ columns_WW.T)) @ columns_WW


def cosine_matrix(side: int) -> Tensor:
    """The orthonormal discrete cosine transform of type II as a matrix, float64 [side, side]: frequencies by pixels."""
    frequency_S, pixel_S = torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64) + 0.5
    matrix_SS = torch.cos(math.pi / side * frequency_S[:, None] * pixel_S) * math.sqrt(2 / side)
    matrix_SS[0] /= math.sqrt(2)
    return matrix_SS
