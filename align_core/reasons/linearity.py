"""How far the loss is from linear around an image: the error of its first-order prediction (Qin et al., NeurIPS 2019).

Qin et al. ("Adversarial robustness through local linearization", arXiv 1907.02610) call it g(d; x), and its maximum
within the ball gamma(eps, x).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from align_core.attacks.updates import direction, project
from align_core.errors import InputError
from align_core.reasons.passes import Passed, check_alike, gradients, losses
from align_core.reasons.points import random_points

STEPS = 10


class LargestError(NamedTuple):
    """The largest error of linearity that was found within the ball.

    Args:
        error_B: in nats, float64. It is a lower bound of the maximum: an ascent may miss the highest point.
        point_BCHW: where it was found.
    """

    error_B: Tensor
    point_BCHW: Tensor


def linearity_error(at: Passed, displaced_loss_B: Tensor, displacement_BCHW: Tensor) -> Tensor:
    """|loss(x + d) - loss(x) - d . grad loss(x)| for each image, in nats: float64 [B].

    Args:
        at: loss and gradient at x, from `passes.gradients`.
        displaced_loss_B: loss at x + d, from `passes.losses` or `passes.gradients`.
        displacement_BCHW: d, such as a random point or an attacked image minus the clean one.

    No pass is needed beyond those that gave the losses. In float32 a network's logits are rounded by about 1e-6 of
    their size, so that errors below that are noise. Raises InputError where `at` has no gradient, or for other shapes.
    """
    signed_B = _signed_error(at, displaced_loss_B, displacement_BCHW)
    return signed_B.abs()


def largest_linearity_error(
    network: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    seed: int,
    eps: float,
    *,
    at: Passed,
    norm: str = "linf",
    steps: int = STEPS,
    start_BCHW: Tensor | None = None,
    whose: str = "the network",
    pass_rows: int | None = None,
) -> LargestError:
    """gamma(eps, x) = the maximum of the error over |d| <= eps, x + d within [0, 1], by gradient ascent on it.

    As in Qin et al. it is sought by projected steps. Our own choices: steps of eps / 2 in the direction of steepest
    ascent of the norm (signs for l-infinity), one start, and the best of all points that were visited. On a ResNet-20
    for CIFAR-10 (eps 2/255), 10 such steps found more than 10 of eps / 4, eps or 2 eps: 18 nats on average from random
    points, but 24 from images that PGD had attacked, whose own error was 23. So start at attacked images where there
    are any, and take what random starts find as what can be known before crafting.

    Args:
        network, labels_B, image_ids, whose, pass_rows: as in `passes.losses`.
        images_BCHW: x, float pixels in [0, 1].
        seed: of the random start, drawn by image id.
        start_BCHW: points within the ball to start at instead, such as attacked images: the error that is found is
            then at least theirs.
        eps: in fractions of the pixel range.
        at: loss and gradient at x, from `passes.gradients`.
        norm: `linf` or `l2`.
        steps: at least 0; with 0 it is the error at the random point.

    It costs `steps` forward and backward passes, and a forward pass. Raises what `passes.gradients`, `random_points`
    and `linearity_error` raise, and InputError for fewer than 0 steps.
    """
    if steps < 0:
        raise InputError(f"steps must be at least 0, not {steps}")
    point_BCHW = random_points(images_BCHW, image_ids, seed, eps, norm)
    if start_BCHW is not None:
        check_alike(images=images_BCHW, start=start_BCHW)
        point_BCHW = project(start_BCHW, images_BCHW, eps, norm)
    best = LargestError(torch.full_like(at.loss_B, -1.0), point_BCHW)
    for _ in range(steps):
        here = gradients(network, point_BCHW, labels_B, image_ids, whose=whose, pass_rows=pass_rows)
        signed_B = _signed_error(at, here.loss_B, point_BCHW - images_BCHW)
        best = _better(best, signed_B.abs(), point_BCHW)
        assert here.gradient_BCHW is not None and at.gradient_BCHW is not None
        sign_B111 = torch.where(signed_B < 0, -1.0, 1.0).to(point_BCHW.dtype)[:, None, None, None]
        climb_BCHW = sign_B111 * (here.gradient_BCHW - at.gradient_BCHW)
        point_BCHW = project(point_BCHW + eps / 2 * direction(climb_BCHW, norm), images_BCHW, eps, norm)
    last = losses(network, point_BCHW, labels_B, image_ids, whose=whose, pass_rows=pass_rows)
    return _better(best, linearity_error(at, last.loss_B, point_BCHW - images_BCHW), point_BCHW)


def _signed_error(at: Passed, displaced_loss_B: Tensor, displacement_BCHW: Tensor) -> Tensor:
    if at.gradient_BCHW is None:
        raise InputError("the error of linearity needs the gradient at the image: give what `gradients` returns")
    check_alike(gradient=at.gradient_BCHW, displacement=displacement_BCHW)
    check_alike(loss=at.loss_B, displaced_loss=displaced_loss_B)
    predicted_B = (displacement_BCHW.flatten(1).double() * at.gradient_BCHW.flatten(1).double()).sum(dim=1)
    return displaced_loss_B.double() - at.loss_B.double() - predicted_B


def _better(best: LargestError, error_B: Tensor, point_BCHW: Tensor) -> LargestError:
    is_better_B = error_B > best.error_B
    points_BCHW = torch.where(is_better_B[:, None, None, None], point_BCHW, best.point_BCHW)
    return LargestError(torch.where(is_better_B, error_B, best.error_B), points_BCHW)
