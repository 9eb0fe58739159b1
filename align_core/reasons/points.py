"""Where reasons are measured besides clean and attacked images, and in which directions: drawn by image id."""

from collections.abc import Sequence

import torch
from torch import Tensor

from align_core.attacks.updates import random_point
from align_core.errors import InputError
from align_core.randomness import image_keys, normal, part_keys


def random_points(
    images_BCHW: Tensor, image_ids: Sequence[str], seed: int, eps: float, norm: str = "linf", draw: int = 0
) -> Tensor:
    """A point of the ball of radius `eps` around each image, drawn uniformly and cut to [0, 1]: float [B, C, H, W].

    Args:
        images_BCHW: float pixels in [0, 1], the centres.
        image_ids, seed, draw: decide the point of an image, the same for every network, batch and device.
        eps: in fractions of the pixel range, above 0.
        norm: `linf` or `l2`.

    Raises InputError for another norm or eps.
    """
    if norm not in ("linf", "l2") or not 0 < eps < float("inf"):
        raise InputError(f"give a norm of linf or l2 and an eps above 0, not {norm!r} and {eps}")
    return random_point(images_BCHW, _keys(images_BCHW, image_ids, seed, draw, "reasons/point"), eps, norm)


def orthogonal_direction(direction_BCHW: Tensor, image_ids: Sequence[str], seed: int, draw: int = 0) -> Tensor:
    """A random direction across one that is given, of the same l2 length: u with u.d = 0 and |u| = |d|.

    A normal vector n, drawn from the seed and the image's id, gives u = n - (n.d / |d|^2) d, scaled to |d|. In
    thousands of pixels it is what a direction that knows nothing of the network does at the same length. It is not of
    the same l-infinity length: of an attack's d it exceeds eps about four times over at its largest pixel.

    Args:
        direction_BCHW: d, floating-point; an image whose d is 0 gets 0.
        image_ids, seed, draw: decide n.

    Returns the type and the shape of d. Raises InputError where an image has a single value, to which nothing is
    orthogonal.
    """
    if direction_BCHW[0].numel() < 2:
        raise InputError("nothing is orthogonal to a direction in one dimension")
    random_BP = normal(
        _keys(direction_BCHW, image_ids, seed, draw, "reasons/across"), direction_BCHW.shape[1:]
    ).flatten(1)
    across_BP, along_BP = random_BP.double(), direction_BCHW.flatten(1).double()
    length_B1 = along_BP.norm(dim=1, keepdim=True)
    unit_BP = along_BP / torch.where(length_B1 > 0, length_B1, 1.0)
    for _ in range(2):  # the second time takes away what rounding left
        across_BP = across_BP - (across_BP * unit_BP).sum(dim=1, keepdim=True) * unit_BP
    across_BP = across_BP * (length_B1 / across_BP.norm(dim=1, keepdim=True))
    across_BCHW: Tensor = across_BP.view(direction_BCHW.shape).to(direction_BCHW.dtype)
    return across_BCHW


def _keys(like_BCHW: Tensor, image_ids: Sequence[str], seed: int, draw: int, part: str) -> Tensor:
    if len(image_ids) != len(like_BCHW) or not like_BCHW.is_floating_point():
        raise InputError(f"give float pixels and an id for each of the {len(like_BCHW)} images, not {len(image_ids)}")
    return part_keys(image_keys(seed, image_ids), draw, part).to(like_BCHW.device)
