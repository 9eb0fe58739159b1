"""The classes that targeted attacks lead images to. None of these rules ever yields an image's own label.

`next` and `random` need the labels alone; `least_likely` needs the logits of one network on the clean images, which has
to be the same for every surrogate, so that all of them lead an image to the same class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from align_core.randomness import image_keys, part_keys, random_bits


def next_classes(labels_B: Tensor, classes: int) -> Tensor:
    """The class after the label, and the first one after the last: int64 [B]."""
    return (labels_B + 1) % classes


def random_classes(labels_B: Tensor, image_ids: Sequence[str], classes: int, seed: int) -> Tensor:
    """A class other than the label, drawn for each image by (seed, image id), all with equal probability: int64 [B]."""
    keys_B = part_keys(image_keys(seed, image_ids), 0, "towards").to(labels_B.device)
    # 63 random bits: what is left over in dividing them among a million classes is below any figure.
    drawn_B = (random_bits(keys_B, (1,))[:, 0] & (2**63 - 1)) % (classes - 1)
    return drawn_B + (drawn_B >= labels_B)


def least_likely_classes(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """The class of the smallest logit but for the label, the first of several that are equal: int64 [B].

    Raises FloatingPointError where a logit is NaN, as no class is the smallest then.
    """
    if logits_BK.isnan().any():
        raise FloatingPointError("the logits of the source are NaN, so that no class is its least likely one")
    return logits_BK.scatter(1, labels_B[:, None], torch.inf).argmin(dim=1)
