"""The smoothing of the gradient (TI) against scipy."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

from align_core.attacks.gradients import gaussian, smooth


@pytest.mark.parametrize("side", [1, 3, 5, 15])
def test_the_gaussian_is_scipys(side):
    density = scipy.stats.norm.pdf(np.linspace(-3, 3, side) if side > 1 else [0.0])
    np.testing.assert_allclose(gaussian(side), density / density.sum(), rtol=1e-4)


@pytest.mark.parametrize("side", [1, 3, 5, 15, 25])
def test_smoothing_is_scipys_convolution_of_each_channel_with_the_whole_kernel(side):
    gradient = np.random.default_rng(0).normal(size=(2, 3, 12, 9))
    density = scipy.stats.norm.pdf(np.linspace(-3, 3, side) if side > 1 else [0.0])
    kernel = np.outer(density, density) / np.outer(density, density).sum()
    expected = [[scipy.signal.convolve(plane, kernel, mode="same") for plane in image] for image in gradient]
    for number, atol in ((np.float32, 1e-5), (np.float64, 1e-6)):
        smoothed = smooth(torch.from_numpy(gradient.astype(number)), gaussian(side))
        assert smoothed.dtype == torch.from_numpy(gradient.astype(number)).dtype
        np.testing.assert_allclose(smoothed, expected, atol=atol)
