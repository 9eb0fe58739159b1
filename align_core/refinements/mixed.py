"""What mixing makes of a batch: images, and the two labels of each."""

from typing import NamedTuple

import torch
from torch import Tensor


class Mixed(NamedTuple):
    """A batch whose images were mixed with each other.

    Args:
        images_BCHW: the mixed images.
        others_B: the label of what was mixed into each.
        share: how much of each image is its own, from 0 to 1.
    """

    images_BCHW: Tensor
    others_B: Tensor
    share: float

    def parts(self, labels_B: Tensor, count: int) -> list[tuple["Mixed", Tensor]]:
        """The batch, whose images have these labels, in so many parts of nearly equal size."""
        cut = (
            torch.tensor_split(own, min(count, len(labels_B))) for own in (self.images_BCHW, self.others_B, labels_B)
        )
        return [(Mixed(images, others, self.share), labels) for images, others, labels in zip(*cut, strict=True)]


def draw(count: int, alpha: float, device: torch.device) -> tuple[float, Tensor]:
    """The share that an image keeps, from a Beta distribution, and for each of `count` images the one mixed into it."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    return share, torch.randperm(count).to(device)
