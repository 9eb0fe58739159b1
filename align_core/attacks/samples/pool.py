"""The neighbours of OPS (Guo et al. 2025): a pool of noises of several radii, of which each step takes some."""

import torch
from torch import Tensor

from align_core.attacks.samples import At
from align_core.randomness import numbered_keys, part_keys, uniform

_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def pool(at: At, memory: None, count: int, radius: float) -> tuple[Tensor, None]:
    """The mean over the plain gradient at the image and those of noisy images, which alone are seen through the views.

    Args:
        at: where the attack stands.
        memory: none.
        count: number of noisy images. The pool holds as many noises of each of six radii, the same in all steps.
        radius: in units of eps; the radii are 1/4, 1/2, 3/4, 1, 5/4 and 3/2 of it.
    """
    device = at.keys_B.device
    chosen_BS = uniform(part_keys(at.keys_B, 0, "pool"), (count * len(_RATIOS),)).argsort(dim=1)[:, :count]
    noise_keys_BS = numbered_keys(part_keys(at.first_keys_B, 0, "pool")[:, None], chosen_BS)
    reach_BS = radius * at.unit * torch.tensor(_RATIOS, device=device)[chosen_BS // count]
    draws = uniform(noise_keys_BS.T.flatten(), at.ahead_BCHW.shape[1:]).view(-1, *at.ahead_BCHW.shape)
    points = at.ahead_BCHW + reach_BS.T[:, :, None, None, None] * (2 * draws - 1)
    plain_BCHW = at.gradients(at.ahead_BCHW[None], None)[0]
    # Gradients are the mean over a point's views, and the plain one counts as one view of one more point.
    views = at.copies
    seen = at.gradients(points, at.keys_of_points("pool, views", count))
    return (plain_BCHW + views * seen.sum(dim=0)) / (1 + count * views), None
