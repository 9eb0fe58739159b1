"""Frequency-guided sample relevance, FGSRA (Wang and Wang 2024)."""

from functools import partial

from torch import Tensor

from align_core.attacks.samples import At, cosine
from align_core.attacks.samples.relevance import weighted
from align_core.attacks.views.spectrum import frequencies_scaled
from align_core.randomness import part_keys


def frequency(at: At, memory: None, count: int, radius: float, rho: float) -> tuple[Tensor, None]:
    """As `relevance`, with neighbours whose frequencies are scaled, weighted by their likeness to the image.

    The gradient of a neighbour is taken through the scaling of its frequencies by factors from [1 - rho, 1 + rho].
    """
    keys_SB = at.keys_of_points("frequency", count)
    near = at.near(at.ahead_BCHW, keys_SB, radius)
    scaled = partial(_scaled, rho=rho)
    likeness = cosine(at.ahead_BCHW[None].expand_as(near), scaled(near.flatten(0, 1), keys_SB.flatten()).view_as(near))
    own_BCHW = at.gradients(at.ahead_BCHW[None], at.keys_of_points("frequency, own", 1))[0]
    gradients = at.gradients(near, keys_SB, through=scaled)
    # The sum, as in the paper's code: the cosine does not change with its size, the weighted sum does.
    return weighted(own_BCHW, (likeness * gradients).sum(dim=0)), None


def _scaled(images_NCHW: Tensor, keys_N: Tensor, rho: float) -> Tensor:
    return frequencies_scaled(images_NCHW, part_keys(keys_N, 0, "frequencies"), rho)
