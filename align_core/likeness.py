"""How like its witnesses a network is: what an alignment is meant to raise, measured before it and after it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from align_core.effect import Likeness
from align_core.models import predicting
from align_core.weights import State

_MOST_LOOKED_AT = 500


def likeness_sample(images: int) -> list[int]:
    """The positions of the training images on which the likeness to the witnesses is measured: at most 500, drawn once.

    They depend on the number of images alone, so that surrogates and seeds are compared on the same ones.
    """
    if images <= _MOST_LOOKED_AT:
        return list(range(images))
    drawn = np.random.default_rng(0).choice(images, _MOST_LOOKED_AT, replace=False)
    return sorted(int(position) for position in drawn)


def likeness_of(
    compared: Callable[[Tensor, Tensor], tuple[Tensor, Mapping[str, Tensor], Sequence[Tensor]]],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> Likeness | None:
    """How like its witnesses a network is, over all images of some batches; None where a value is not finite.

    Args:
        compared: images [B, C, H, W] and labels [B] to the network's logits, the alignment losses, each with its
            weight, and the logits of each witness.
    """
    loss, agreeing, images = 0.0, 0.0, 0
    for images_BCHW, labels_B in batches:
        with torch.no_grad():
            logits_BK, losses, theirs = compared(images_BCHW, labels_B)
        own_B = logits_BK.argmax(dim=1)
        loss += len(own_B) * sum(float(own) for own in losses.values())
        agreeing += sum(int((own_B == other_BK.argmax(dim=1)).sum()) for other_BK in theirs) / len(theirs)
        images += len(own_B)
    found = Likeness(loss / images, 100 * agreeing / images)
    return found if math.isfinite(found.loss) else None


def mean_likeness(found: Sequence[Likeness | None]) -> Likeness | None:
    """The mean over several networks; None where one of them is not known."""
    known = [own for own in found if own is not None]
    if not known or len(known) < len(found):
        return None
    return Likeness(*(sum(getattr(own, name) for own in known) / len(known) for name in ("loss", "agreement")))


@contextmanager
def looked_at(network: nn.Module, state: State | None = None) -> Iterator[None]:
    """Puts a network into eval mode, with other weights if given; afterwards it is exactly as it was."""
    own = {name: value.detach().clone() for name, value in network.state_dict().items()}
    with predicting(network):
        try:
            if state is not None:
                network.load_state_dict(state)
            yield
        finally:
            network.load_state_dict(own)
