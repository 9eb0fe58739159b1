"""The length of the input gradient as a penalty (IR; Zhang et al., S&P 2024, 2307.07873)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.refinements.at import At, logits, twice_differentiable


def input_gradient(at: At) -> Tensor:
    """The l2 length of the gradient of each image's cross-entropy in its pixels, averaged over images: a scalar.

    Pixels are in [0, 1]. The authors take the length over the whole batch at once, divided by its size, and the network
    in train mode; here it is image by image, in eval mode, as the network is attacked, so that weights differ.
    """
    with twice_differentiable(at.network):
        leaf_BCHW = at.images_BCHW.detach().requires_grad_()
        loss = F.cross_entropy(logits(at.network, leaf_BCHW), at.labels_B, reduction="sum")
        (gradient_BCHW,) = torch.autograd.grad(loss, leaf_BCHW, create_graph=True)
        least = torch.finfo(gradient_BCHW.dtype).tiny
        return gradient_BCHW.flatten(1).square().sum(dim=1).clamp_min(least).sqrt().mean()
