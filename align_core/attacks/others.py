"""Images of the image set that views mix in, drawn by key, never from the batch that an image happens to be in."""

from typing import NamedTuple

import torch
from torch import Tensor

from align_core.randomness import uniform


class Others(NamedTuple):
    """Images to mix in: uint8 [P, C, H, W], and their labels, int64 [P]."""

    images_PCHW: Tensor
    labels_P: Tensor

    def drawn(self, keys_N: Tensor, labels_N: Tensor) -> Tensor:
        """An image for each key, at random among those of other labels: float pixels [N, C, H, W].

        Where all have the label, it is drawn among all.
        """
        differs_NP = self.labels_P[None, :] != labels_N[:, None]
        differs_NP = differs_NP | ~differs_NP.any(dim=1, keepdim=True)
        count_N = differs_NP.sum(dim=1)
        rank_N = (uniform(keys_N, (1,))[:, 0].double() * count_N).long()
        # The first place at which more than `rank` images of other labels have been passed.
        chosen_N = (differs_NP.cumsum(dim=1) <= rank_N[:, None]).sum(dim=1)
        return self.images_PCHW[chosen_N].to(torch.float32) / 255
