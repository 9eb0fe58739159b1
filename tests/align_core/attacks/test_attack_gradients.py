"""The smoothing of the gradient (TI) against scipy."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

from align_core.attacks.gradients import gaussian_kernel, smooth


@pytest.mark.parametrize("side", [1, 3, 5, 15])
def test_gaussian_kernel_is_scipys(side):
    density = scipy.stats.norm.pdf(np.linspace(-3, 3, side) if side > 1 else [0.0])
    expected = np.outer(density, density) / np.outer(density, density).sum()
    np.testing.assert_allclose(gaussian_kernel(side), expected, rtol=1e-4)


@pytest.mark.parametrize("side", [3, 5, 15])
def test_smoothing_is_scipys_convolution_of_each_channel(side):
    gradient = np.random.default_rng(0).normal(size=(2, 3, 12, 9)).astype(np.float32)
    density = scipy.stats.norm.pdf(np.linspace(-3, 3, side))
    kernel = np.outer(density, density) / np.outer(density, density).sum()
    expected = [[scipy.signal.convolve2d(plane, kernel, mode="same") for plane in image] for image in gradient]
    np.testing.assert_allclose(smooth(torch.from_numpy(gradient), gaussian_kernel(side)), expected, atol=1e-5)
