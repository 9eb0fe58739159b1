"""How gradients become steps in the l-infinity ball."""

import torch
from torch import Tensor


def accumulate(momentum_BCHW: Tensor, gradient_BCHW: Tensor, decay: float) -> Tensor:
    """Momentum (Dong et al. 2018, equation 6): decay * momentum + gradient / mean |gradient|, per image.

    The mean instead of the sum: a constant factor, which the sign takes away, and steps of NI of the size its later
    implementations use.
    """
    size_B111 = gradient_BCHW.abs().mean(dim=(1, 2, 3), keepdim=True)
    return decay * momentum_BCHW + gradient_BCHW / size_B111.clamp_min(torch.finfo(size_B111.dtype).tiny)


def project(images_BCHW: Tensor, centre_BCHW: Tensor, eps: float) -> Tensor:
    """The nearest point of the ball around `centre`, and of the pixels' range [0, 1]."""
    return torch.clamp(images_BCHW, centre_BCHW - eps, centre_BCHW + eps).clamp_(0, 1)


def round_inside(images_BCHW: Tensor, centre_8bit_BCHW: Tensor, eps: float) -> Tensor:
    """Float pixels as uint8, rounded to nearest but never out of the ball around the 8-bit centre."""
    radius = int(eps * 255 + 1e-4)
    centre_BCHW = centre_8bit_BCHW.to(torch.float32)
    rounded_BCHW = (images_BCHW * 255).round()
    return torch.clamp(rounded_BCHW, centre_BCHW - radius, centre_BCHW + radius).clamp_(0, 255).to(torch.uint8)
