"""The adversarial part of spatial adversarial alignment (SAA; Chen et al. 2025, 2501.01015)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.refinements.at import At, gradient_in, within


def self_adversarial(at: At, local: float, eps: float, step: float, steps: int) -> Tensor:
    """The alignment losses at images that lead the source away from its teachers: a scalar.

    The images ascend KL(teacher || source), the teacher seeing the clean image, by signs of its gradient on the source
    within the l-infinity ball. There the losses to the teachers are added, each at its weight in the alignment but for
    that at places, whose weight is `local` here.

    From a third party's summary of the paper, whose lengths and number of steps are not published: they are those of
    Ma et al. (2024) for perturbed inputs, with the same random start.
    """
    temperature, centre_BCHW = at.temperature, at.images_BCHW
    clean = [F.softmax(own_BK.float() / temperature, dim=1) for own_BK in at.taught(centre_BCHW)]
    wanted_BK = torch.stack(clean).mean(dim=0)

    def distance(logits_BK: Tensor) -> Tensor:
        return -(wanted_BK * F.log_softmax(logits_BK / temperature, dim=1)).sum(dim=1)

    now_BCHW = within(centre_BCHW + eps * (2 * torch.rand_like(centre_BCHW) - 1), centre_BCHW, eps)
    for _ in range(steps):
        now_BCHW = now_BCHW + step * gradient_in(at.network, now_BCHW, distance).sign()
        now_BCHW = within(now_BCHW, centre_BCHW, eps)
    losses = at.towards(now_BCHW, at.labels_B)
    weights = {**at.weights, "local": local}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
