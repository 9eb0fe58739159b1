"""How gradients become steps within the l-infinity ball, and how the result is rounded to 8 bits."""

import torch
from torch import Tensor


def accumulate(momentum_BCHW: Tensor, gradient_BCHW: Tensor, decay: float) -> Tensor:
    """The momentum of Dong et al. (2018, equation 6): decay * momentum + gradient / mean |gradient|, image by image.

    The paper divides by the sum of absolute values, this function by their mean, as later implementations do. The sign
    of the result is the same. The look-ahead of NI, which adds the momentum itself to the image, needs the mean: with
    the sum it would be shorter by a factor of C H W, and have no visible effect.
    """
    size_B111 = gradient_BCHW.abs().mean(dim=(1, 2, 3), keepdim=True)
    return decay * momentum_BCHW + gradient_BCHW / size_B111.clamp_min(torch.finfo(size_B111.dtype).tiny)


def project(images_BCHW: Tensor, centre_BCHW: Tensor, eps: float) -> Tensor:
    """The nearest image within `eps` of the centre, in l-infinity distance, and within the pixel range [0, 1]."""
    return torch.clamp(images_BCHW, centre_BCHW - eps, centre_BCHW + eps).clamp_(0, 1)


def levels_of(eps: float) -> int:
    """The radius of the ball in whole 8-bit levels, such as 8 for 8/255.

    The tolerance is for an eps that was rounded when it was written, such as 0.0313725, just below 8/255.
    """
    return int(eps * 255 + 1e-4)


def round_inside(images_BCHW: Tensor, centre_8bit_BCHW: Tensor, eps: float) -> Tensor:
    """Rounds float pixels in [0, 1] to uint8 without leaving the ball of radius `eps` around the 8-bit centre.

    Rounding to the nearest level alone may leave the ball where `eps` is not a whole number of levels, or where a pixel
    lies on its border. The stored 8-bit image is the one that is evaluated, so it is this one that must keep to `eps`.
    """
    radius = levels_of(eps)
    centre_BCHW = centre_8bit_BCHW.to(torch.float32)
    rounded_BCHW = (images_BCHW * 255).round()
    return torch.clamp(rounded_BCHW, centre_BCHW - radius, centre_BCHW + radius).clamp_(0, 255).to(torch.uint8)
