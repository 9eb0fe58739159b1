"""Cross-entropy and its input gradient at given points, image by image: what most reasons are computed from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from align_core.attacks.checks import check_logits
from align_core.attacks.config import PASS_ROWS
from align_core.attacks.objectives.cross_entropy import cross_entropy
from align_core.device_errors import device_error
from align_core.errors import InputError, named, reason_of
from align_core.finite import check_finite
from align_core.models import Classifier, Ensemble, predicting

Made = TypeVar("Made")


class NoGradient(InputError):
    """A network has no gradient, or no second one, with respect to its pixels: its reasons that need one are blank."""


class Passed(NamedTuple):
    """What a network makes of points.

    Args:
        logits_BK: in the type that the network returns, without a gradient.
        loss_B: cross-entropy with the labels in nats, float64.
        gradient_BCHW: of the loss with respect to the pixels, in nats per pixel value (0 to 1), in the points' type;
            None where it was not asked for.
    """

    logits_BK: Tensor
    loss_B: Tensor
    gradient_BCHW: Tensor | None


def losses(
    network: nn.Module,
    points_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    *,
    whose: str = "the network",
    pass_rows: int | None = None,
) -> Passed:
    """Logits and cross-entropy at points, without a gradient: a forward pass for each image.

    The loss is softplus(logsumexp of the other logits - the label's logit), in float64 from the network's logits: equal
    to the usual form, but without the rounding that would hide the loss and the gradient of images on which a network
    is sure (see `attacks.objectives.cross_entropy`).

    Args:
        network: maps pixels [B, C, H, W] to logits [B, K]. It is run in eval mode, in float32 whatever its `precision`
            (of bf16, derivatives are rounding noise), and is left as it was. Defences that draw get the ids.
        points_BCHW: floating-point pixels. They may lie outside of [0, 1], as on a slice.
        labels_B: int64 labels.
        image_ids: an id per image, for messages and defences.
        whose: what a message calls the network.
        pass_rows: images per pass, by default those of an attack; where memory does not hold them, they are halved.

    Raises InputError where the arguments do not fit each other or the logits, and FloatingPointError, which names the
    images, where logits are not finite.
    """
    check_points(points_BCHW, labels_B, image_ids)
    labels_B = labels_B.to(points_BCHW.device)

    def of(part: slice) -> Passed:
        logits_NK = logits_at(network, points_BCHW[part], labels_B[part], image_ids[part], whose)
        return Passed(logits_NK, cross_entropy(logits_NK.double(), labels_B[part], None), None)

    with torch.no_grad(), measured(network):
        return _joined(over_passes(of, points_BCHW, pass_rows))


def gradients(
    network: nn.Module,
    points_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    *,
    whose: str = "the network",
    pass_rows: int | None = None,
) -> Passed:
    """As `losses`, with the input gradient of the cross-entropy: a forward and a backward pass for each image.

    Raises what `losses` raises; NoGradient where no gradient comes back to the pixels; and FloatingPointError, which
    names the images, where it is not finite.
    """
    check_points(points_BCHW, labels_B, image_ids)
    labels_B = labels_B.to(points_BCHW.device)

    def of(part: slice) -> Passed:
        leaf_NCHW = points_BCHW[part].detach().requires_grad_()
        logits_NK = logits_at(network, leaf_NCHW, labels_B[part], image_ids[part], whose)
        loss_N, gradient_NCHW = loss_and_gradient(logits_NK, labels_B[part], leaf_NCHW, whose)
        fine_N = gradient_NCHW.isfinite().flatten(1).all(dim=1)
        if not fine_N.all():
            names = [own for own, is_fine in zip(image_ids[part], fine_N.tolist(), strict=True) if not is_fine]
            raise FloatingPointError(f"the gradient of {whose} is not finite for {len(names)} images: {names[:5]}")
        return Passed(logits_NK.detach(), loss_N.detach(), gradient_NCHW)

    with torch.enable_grad(), measured(network):
        return _joined(over_passes(of, points_BCHW, pass_rows))


def loss_and_gradient(
    logits_NK: Tensor, labels_N: Tensor, leaf_NCHW: Tensor, whose: str, again: bool = False
) -> tuple[Tensor, Tensor]:
    """The cross-entropy, float64 [N], and its gradient with respect to the leaf; `again` keeps it differentiable.

    Raises NoGradient where the logits do not depend on the leaf, as far as torch knows, or cannot be differentiated.
    """
    loss_N = cross_entropy(logits_NK.double(), labels_N, None)
    if not loss_N.requires_grad:
        raise NoGradient(f"{whose} has no gradient with respect to its pixels")
    try:
        found = torch.autograd.grad(loss_N.sum(), leaf_NCHW, create_graph=again)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        if device_error(problem) is not None:
            raise
        raise NoGradient(f"{whose} has no gradient with respect to its pixels ({reason_of(problem)})") from problem
    return loss_N, found[0]


def logits_at(
    network: nn.Module, points_NCHW: Tensor, labels_N: Tensor, image_ids: Sequence[str], whose: str
) -> Tensor:
    """The network's logits, checked: [N, K] with K above the labels and at least 2, and finite."""
    given = (image_ids,) if _takes_ids(network) else ()
    logits_NK: Tensor = network(points_NCHW, *given)
    check_logits(logits_NK, len(points_NCHW), max(1, int(labels_N.max())))
    check_finite(logits_NK.detach(), image_ids, whose)
    return logits_NK


def check_points(points_BCHW: Tensor, labels_B: Tensor, image_ids: Sequence[str]) -> None:
    """Raises InputError unless these are floating-point points [B, C, H, W], at least one, with a label and an id."""
    shape = tuple(points_BCHW.shape)
    if not points_BCHW.is_floating_point() or len(shape) != 4 or not points_BCHW.numel():
        kind = str(points_BCHW.dtype).removeprefix("torch.")
        raise InputError(f"points must be float [B, C, H, W], at least one, not {kind} of shape {shape}")
    if labels_B.dtype != torch.int64 or tuple(labels_B.shape) != shape[:1] or int(labels_B.min()) < 0:
        kind = str(labels_B.dtype).removeprefix("torch.")
        raise InputError(f"labels must be int64 [{shape[0]}], from 0, not {kind} of shape {tuple(labels_B.shape)}")
    if len(image_ids) != shape[0]:
        raise InputError(f"there are {shape[0]} points and {len(image_ids)} ids; give an id for each")


def check_alike(**tensors_BCHW: Tensor) -> None:
    """Raises InputError, which names them, unless the tensors have one shape."""
    if len({tuple(own.shape) for own in tensors_BCHW.values()}) > 1:
        said = ", ".join(f"{name} {tuple(own.shape)}" for name, own in tensors_BCHW.items())
        raise InputError(f"these must be of the same images and of one shape: {said}")


def over_passes(of: Callable[[slice], Made], points_BCHW: Tensor, pass_rows: int | None) -> list[Made]:
    """What `of` makes of the points, pass by pass; where memory does not hold a pass, the next ones are half as long.

    Raises InputError for a number of rows below 1.
    """
    device = points_BCHW.device.type
    rows = PASS_ROWS.get(device, PASS_ROWS["cuda"]) if pass_rows is None else pass_rows
    if rows < 1:
        raise InputError(f"pass_rows must be at least 1, not {rows}")
    made: list[Made] = []
    start = 0
    while start < len(points_BCHW):
        try:
            made.append(of(slice(start, start + rows)))
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
        else:
            start += rows
    return made


@contextmanager
def measured(network: nn.Module, twice: bool = False) -> Iterator[None]:
    """Runs a network in eval mode, with frozen parameters, in float32; `twice` where it is differentiated twice.

    Fused attention has no second derivative, so that attention is then computed in its plain form.
    """
    classifiers = [own for own in network.modules() if isinstance(own, Classifier)]
    before = [own.precision for own in classifiers]
    with predicting(network, frozen=True):
        try:
            for own in classifiers:
                own.precision = "fp32" if own.precision == "bf16" else own.precision
            if twice:
                with sdpa_kernel(SDPBackend.MATH):
                    yield
            else:
                yield
        finally:
            for own, precision in zip(classifiers, before, strict=True):
                own.precision = precision


@contextmanager
def second_derivatives(whose: str) -> Iterator[None]:
    """Raises NoGradient in place of torch's RuntimeError where a part of a network has no second derivative."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        if device_error(problem) is not None:
            raise
        raise NoGradient(f"torch cannot differentiate {whose} twice ({named(problem)})") from problem


def _takes_ids(network: nn.Module) -> bool:
    if isinstance(network, Ensemble):
        return all(isinstance(member, Classifier) for member in network.members)
    return isinstance(network, Classifier)


def _joined(parts: Sequence[Passed]) -> Passed:
    gradients = [own.gradient_BCHW for own in parts if own.gradient_BCHW is not None]
    return Passed(
        torch.cat([own.logits_BK for own in parts]),
        torch.cat([own.loss_B for own in parts]),
        torch.cat(gradients) if gradients else None,
    )
