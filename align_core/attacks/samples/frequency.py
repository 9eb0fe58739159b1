"""Frequency-guided sample relevance, FGSRA (Wang and Wang 2024)."""

from torch import Tensor

from align_core.attacks.samples import At, cosine
from align_core.attacks.samples.relevance import weighted
from align_core.attacks.views.spectrum import frequencies_scaled, frequency_factors
from align_core.randomness import part_keys


def frequency(at: At, memory: None, count: int, radius: float, rho: float) -> tuple[Tensor, None]:
    """As `relevance`, with neighbours whose frequencies are scaled, weighted by their likeness to the image.

    The gradient of a neighbour is taken through the scaling of its frequencies by factors from [1 - rho, 1 + rho]. The
    scaling is a symmetric matrix: what it does to images, it does to gradients on their way back.
    """
    keys_SB = at.keys_of_points("frequency", count)
    near = at.near(at.ahead_BCHW, keys_SB, radius)
    factors = frequency_factors(part_keys(keys_SB.flatten(), 0, "frequencies"), near.shape[2:], rho)
    scaled = frequencies_scaled(near.flatten(0, 1), factors).view_as(near)
    likeness = cosine(at.ahead_BCHW[None].expand_as(near), scaled)
    own_BCHW = at.gradients(at.ahead_BCHW[None], at.keys_of_points("frequency, own", 1))[0]
    gradients = likeness * at.gradients(scaled, keys_SB)
    through = frequencies_scaled(gradients.flatten(0, 1), factors).view_as(near)
    # The sum, as in the paper's code: the cosine does not change with its size, the weighted sum does.
    return weighted(own_BCHW, through.sum(dim=0)), None
