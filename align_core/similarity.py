"""Structural similarity of two images (SSIM; Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004)."""

import math

import torch
from torch import Tensor

from align_core.attacks.checks import check_images
from align_core.errors import InputError

_SIDE, _SIGMA = 11, 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2
# Values at once. On a CPU the maps of these fit its cache, which halves the time and more.
_AT_ONCE = {"cpu": 2**16, "cuda": 2**23}


def structural_similarity(images_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
    """SSIM of two uint8 batches image by image, on pixels in [0, 1]: float32 [B], 1 where they are equal.

    The window is a Gaussian of 11 x 11 pixels and sigma 1.5; in images below 11 pixels it is the largest odd square
    that fits. As in the paper's code, only windows that lie inside the image count; the channels are averaged. Raises
    InputError for other batches.
    """
    check_images("the images", images_BCHW)
    check_images("the other images", others_BCHW)
    if images_BCHW.shape != others_BCHW.shape:
        shapes = tuple(images_BCHW.shape), tuple(others_BCHW.shape)
        raise InputError(f"batches of shape {shapes[0]} and {shapes[1]} cannot be compared image by image")
    at_once = max(1, _AT_ONCE.get(images_BCHW.device.type, _AT_ONCE["cuda"]) // images_BCHW[0].numel())
    pairs = zip(torch.split(images_BCHW, at_once), torch.split(others_BCHW, at_once), strict=True)
    return torch.cat([_similarity(one.double() / 255, other.double() / 255) for one, other in pairs]).float()


def _similarity(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    # In double precision, because a variance is a small difference of large numbers: 1e-4 would be lost where it is 0.
    fit = min(_SIDE, *x_BCHW.shape[2:])
    side = fit - (fit + 1) % 2
    weights = [math.exp(-((place - side // 2) ** 2) / (2 * _SIGMA**2)) for place in range(side)]
    weights = [weight / sum(weights) for weight in weights]

    def mean(values_BCHW: Tensor) -> Tensor:
        for dim in (2, 3):
            count = values_BCHW.shape[dim] - side + 1
            total_BCHW = torch.zeros_like(values_BCHW.narrow(dim, 0, count))
            for start, weight in enumerate(weights):
                total_BCHW.add_(values_BCHW.narrow(dim, start, count), alpha=weight)
            values_BCHW = total_BCHW
        return values_BCHW

    maps = torch.cat([x_BCHW, y_BCHW, x_BCHW * x_BCHW, y_BCHW * y_BCHW, x_BCHW * y_BCHW])
    x, y, xx, yy, xy = mean(maps).chunk(5)
    xx, yy, xy = xx - x * x, yy - y * y, xy - x * y
    likeness = (2 * x * y + _LUMINANCE) * (2 * xy + _CONTRAST)
    return (likeness / ((x**2 + y**2 + _LUMINANCE) * (xx + yy + _CONTRAST))).flatten(1).mean(dim=1)
