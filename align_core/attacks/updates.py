"""How gradients become steps within the ball, and how the result is rounded to 8 bits there.

The ball of l-infinity is a cube: a step has the gradient's signs. That of l2 is round: a step has its direction.
"""

import torch
from torch import Tensor

from align_core.attacks.lengths import levels_of, square_levels_of
from align_core.attacks.samples import per_mean
from align_core.randomness import normal, part_keys, uniform


def accumulate(momentum_BCHW: Tensor, gradient_BCHW: Tensor, decay: float, normalized: bool = True) -> Tensor:
    """The momentum of Dong et al. (2018, equation 6): decay * momentum + gradient / mean |gradient|, image by image.

    The paper divides by the sum of absolute values, this function by their mean, as later implementations do. The sign
    of the result is the same. The look-ahead of NI, which adds the momentum itself to the image, needs the mean: with
    the sum it would be shorter by a factor of C H W, and have no visible effect. Unless `normalized`, nothing divides.
    """
    return decay * momentum_BCHW + (per_mean(gradient_BCHW) if normalized else gradient_BCHW)


def direction(gradient_BCHW: Tensor, norm: str) -> Tensor:
    """The step of length 1 along which the objective grows most: the gradient's signs, or it divided by its length."""
    if norm == "linf":
        return gradient_BCHW.sign()
    length_B111 = gradient_BCHW.flatten(1).norm(dim=1)[:, None, None, None]
    unit_BCHW: Tensor = gradient_BCHW / length_B111.clamp_min(torch.finfo(length_B111.dtype).tiny)
    return unit_BCHW


def slowed(pace_BCHW: Tensor, one_BCHW: Tensor, other_BCHW: Tensor, decay: float) -> Tensor:
    """The pace of each pixel, times `decay` where the two differ in sign (GRA; Zhu et al. 2023, equation 8)."""
    return pace_BCHW * torch.where(one_BCHW.sign() != other_BCHW.sign(), decay, 1.0)


def random_point(centre_BCHW: Tensor, keys_B: Tensor, eps: float, norm: str) -> Tensor:
    """A point of the ball around each image, drawn uniformly, and then cut to the pixel range."""
    shape = centre_BCHW.shape[1:]
    if norm == "linf":
        return project(centre_BCHW + eps * (2 * uniform(keys_B, shape) - 1), centre_BCHW, eps, norm)
    bell_BCHW = direction(normal(part_keys(keys_B, 0, "direction"), shape), norm)
    share_B1 = uniform(part_keys(keys_B, 0, "length"), (1,)) ** (1 / shape.numel())
    return project(centre_BCHW + eps * share_B1[:, :, None, None] * bell_BCHW, centre_BCHW, eps, norm)


def project(images_BCHW: Tensor, centre_BCHW: Tensor, eps: float, norm: str) -> Tensor:
    """An image within `eps` of the centre and within the pixel range [0, 1].

    For l-infinity it is the nearest one. For l2 the difference is shortened to `eps`, then cut to the range.
    """
    if norm == "linf":
        return torch.clamp(images_BCHW, centre_BCHW - eps, centre_BCHW + eps).clamp_(0, 1)
    difference_BCHW = images_BCHW - centre_BCHW
    length_B111 = difference_BCHW.flatten(1).norm(dim=1)[:, None, None, None]
    shorter_B111 = (eps / length_B111.clamp_min(torch.finfo(length_B111.dtype).tiny)).clamp_max(1)
    near_BCHW: Tensor = centre_BCHW + shorter_B111 * difference_BCHW
    return near_BCHW.clamp_(0, 1)


def round_inside(images_BCHW: Tensor, centre_8bit_BCHW: Tensor, eps: float, norm: str) -> Tensor:
    """Rounds float pixels in [0, 1] to uint8 without leaving the ball of radius `eps` around the 8-bit centre.

    Rounding to the nearest level alone may leave the ball. The stored 8-bit image is the one that is evaluated, so it
    is this one that must keep to `eps`. In the cube, pixels are cut off at the whole levels that lie inside. In the
    round ball, the pixels that were rounded furthest outwards go one level towards the clean pixel until all is inside.
    """
    rounded_BCHW = (images_BCHW * 255).round().clamp(0, 255)
    if norm == "linf":
        radius, centre_BCHW = levels_of(eps), centre_8bit_BCHW.to(torch.float32)
        return torch.clamp(rounded_BCHW, centre_BCHW - radius, centre_BCHW + radius).clamp_(0, 255).to(torch.uint8)
    return _round_into_l2(images_BCHW, rounded_BCHW, centre_8bit_BCHW, square_levels_of(eps))


def _round_into_l2(images_BCHW: Tensor, rounded_BCHW: Tensor, centre_8bit_BCHW: Tensor, most: int) -> Tensor:
    """As `round_inside`. Lengths are summed as whole numbers, so that they are exact."""
    centre_BP = centre_8bit_BCHW.flatten(1).long()
    away_BP = rounded_BCHW.flatten(1).long() - centre_BP
    outwards_BP = away_BP.abs() - (images_BCHW.flatten(1) * 255 - centre_BP).abs()
    order_BP = torch.where(away_BP == 0, -torch.inf, outwards_BP).argsort(dim=1, descending=True, stable=True)
    gain_BP = (2 * away_BP.abs() - 1).clamp_min(0)  # by how much the square of a pixel shrinks with one level less
    excess_B1 = away_BP.square().sum(dim=1, keepdim=True) - most
    sorted_BP = gain_BP.gather(1, order_BP)
    before_BP = sorted_BP.cumsum(dim=1) - sorted_BP
    shrinks_BP = torch.zeros_like(away_BP).scatter(1, order_BP, (before_BP < excess_B1).long())
    return (centre_BP + away_BP - away_BP.sign() * shrinks_BP).view(centre_8bit_BCHW.shape).to(torch.uint8)
