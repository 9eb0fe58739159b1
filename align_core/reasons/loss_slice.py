"""The loss on a straight line through an image: along an attack, and across it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from align_core.errors import InputError
from align_core.reasons.passes import check_alike, losses


def loss_slice(
    network: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    direction_BCHW: Tensor,
    factors: Sequence[float],
    *,
    whose: str = "the network",
    pass_rows: int | None = None,
) -> Tensor:
    """Cross-entropy at x + t d for each image and each given t, in nats: float64 [B, T].

    With d = attacked - clean it is the slice along the attack, on which t = 0 is the clean and t = 1 the attacked
    image; with `points.orthogonal_direction(d, ...)` the one across it, at equal l2 distances.

    Args:
        network, labels_B, image_ids, whose, pass_rows: as in `passes.losses`.
        images_BCHW: x, float pixels in [0, 1].
        direction_BCHW: d, in fractions of the pixel range.
        factors: t, in any order. Points are not cut to [0, 1], which would bend the line: beyond t = 1, or across an
            image with black or white parts, they are no images, though every network takes them.

    It costs a forward pass for each t. Raises what `passes.losses` raises, and InputError for other shapes, or where
    there is no finite factor.
    """
    check_alike(images=images_BCHW, direction=direction_BCHW)
    if not len(factors) or not all(map(math.isfinite, factors)):
        raise InputError(f"factors must be finite numbers, at least one, not {list(factors)}")
    found = [
        losses(
            network, images_BCHW + factor * direction_BCHW, labels_B, image_ids, whose=whose, pass_rows=pass_rows
        ).loss_B
        for factor in factors
    ]
    return torch.stack(found, dim=1)
