"""Uniform noise, one of the perturbed inputs of Ma et al. (2024)."""

import torch
from torch import Tensor

from align_core.refinements.at import At, within


def random(at: At, eps: float) -> Tensor:
    """The images with noise drawn evenly from the l-infinity ball of radius `eps`, within [0, 1]."""
    noise_BCHW = eps * (2 * torch.rand_like(at.images_BCHW) - 1)
    return within(at.images_BCHW + noise_BCHW, at.images_BCHW, eps)
