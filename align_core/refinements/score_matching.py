"""Score matching of the input gradient: DRA (Zhu et al., TIP 2022, 2210.04213)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.refinements.at import At, logits, twice_differentiable


def score_matching(at: At) -> Tensor:
    """How far the gradient of log p(label | image) in the pixels is from the score of the images, but for a constant.

    With s the gradient at an image, the expected squared distance of s from the gradient of the images' log-density is
    E[|s|^2 + 2 trace(ds/dx)] plus a constant (Hyvärinen, JMLR 2005). The trace is estimated as v . d(s . v)/dx for one
    random direction v of signs per image (sliced score matching; Song et al. 2019, 1905.07088). The result is the mean
    over images, a scalar.

    The authors of DRA withhold their training code; this follows from the identity that they name. The network is in
    eval mode, as it is attacked, and pixels are in [0, 1].
    """
    with twice_differentiable(at.network):
        leaf_BCHW = at.images_BCHW.detach().requires_grad_()
        log_BK = F.log_softmax(logits(at.network, leaf_BCHW), dim=1)
        of_label = log_BK.gather(1, at.labels_B[:, None]).sum()
        (score_BCHW,) = torch.autograd.grad(of_label, leaf_BCHW, create_graph=True)
        signs_BCHW = torch.empty_like(leaf_BCHW, requires_grad=False).bernoulli_(0.5) * 2 - 1
        (turned_BCHW,) = torch.autograd.grad((score_BCHW * signs_BCHW).sum(), leaf_BCHW, create_graph=True)
        squares_B = score_BCHW.flatten(1).square().sum(dim=1)
        traces_B = (turned_BCHW * signs_BCHW).flatten(1).sum(dim=1)
        return (squares_B + 2 * traces_B).mean()
