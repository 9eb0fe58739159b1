"""How curved the loss is: the eigenvalue of largest magnitude of the Hessian of the cross-entropy in the pixels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from align_core.errors import InputError
from align_core.randomness import image_keys, normal, part_keys
from align_core.reasons.passes import (
    check_points,
    logits_at,
    loss_and_gradient,
    measured,
    over_passes,
    second_derivatives,
)

ITERATIONS = 20
TOLERANCE = 0.01


class Curvature(NamedTuple):
    """The Hessian's eigenvalue of largest magnitude for each image, and how well it is known; all [B].

    Args:
        value_B: the Rayleigh quotient v H v of the last unit vector v, with its sign: float64, in nats per squared
            pixel value. A negative one means that the loss bends downwards more than it bends upwards anywhere.
        change_B: its relative change in the last iteration, float64; infinite after a single one.
        residual_B: |H v - value v|, float64. Some eigenvalue lies within it of the value, converged or not.
        iterations_B: Hessian-vector products that were taken, int64.
        converged_B: whether the change was at most the tolerance, and the residual at most its root times the value.
    """

    value_B: Tensor
    change_B: Tensor
    residual_B: Tensor
    iterations_B: Tensor
    converged_B: Tensor


def curvature(
    network: nn.Module,
    points_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    seed: int,
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    whose: str = "the network",
    pass_rows: int | None = None,
) -> Curvature:
    """The eigenvalue by power iteration on Hessian-vector products: v <- H v / |H v| (Ma et al. 2024 report it).

    It begins at a normal vector drawn from the seed and the image's id. An image ends where it has converged, whatever
    the others do. The change alone would not do: where eigenvalues of +a and -a are both largest, v never settles
    while its quotient stays, between the two. There the residual is large, and `converged_B` is False. Where all
    eigenvalues are of one sign, the squared residual is at most the change times the squared value, so that the second
    condition asks for nothing more. Neither can know of a vector that the start happens to have next to nothing of: the
    value is then the next eigenvalue, too small in magnitude, never too large.

    What the Hessian is: of a network of ReLUs, convolutions, eval-mode BatchNorm and max pooling, the logits are linear
    around almost every point. The Hessian is then J^T (diag(p) - p p^T) J with the logits' Jacobian J and the softmax
    p: never negative, of rank K - 1 at most, and 0 to float precision where the network is sure. It says how the
    softmax bends *within* a linear piece. The kinks between pieces, where gradients jump, are not in it; the error of
    local linearity and loss slices see those. Smooth activations (GELU, SiLU, softmax in attention) add their own part,
    which can be negative.

    Args:
        network, points_BCHW, labels_B, image_ids, whose, pass_rows: as in `passes.losses`.
        seed: of the first vectors.
        iterations: Hessian-vector products at most, at least 2.
        tolerance: relative change at which an image has converged.

    It costs a forward and a backward pass, and for every iteration a backward pass through both: about two forward and
    two backward passes. Images that are left are put into smaller passes as others end.

    Raises what `passes.gradients` raises; NoGradient where torch cannot differentiate the network twice; InputError for
    fewer than 2 iterations or a tolerance that is not above 0; FloatingPointError, which names the images, where a
    product is not finite.
    """
    check_points(points_BCHW, labels_B, image_ids)
    if iterations < 2 or not tolerance > 0:
        raise InputError(f"give at least 2 iterations and a tolerance above 0, not {iterations} and {tolerance}")
    labels_B = labels_B.to(points_BCHW.device)
    keys_B = part_keys(image_keys(seed, image_ids), 0, "curvature").to(points_BCHW.device)

    def of(part: slice) -> Curvature:
        start_NCHW = normal(keys_B[part], points_BCHW.shape[1:]).to(points_BCHW)
        batch = _Batch(network, points_BCHW[part], labels_B[part], image_ids[part], whose)
        return _iterated(batch, _unit(start_NCHW), iterations, tolerance)

    with torch.enable_grad(), measured(network, twice=True):
        parts = over_passes(of, points_BCHW, pass_rows)
    return Curvature(*(torch.cat(own) for own in zip(*parts, strict=True)))


class _Batch(NamedTuple):
    network: nn.Module
    points_NCHW: Tensor
    labels_N: Tensor
    image_ids: Sequence[str]
    whose: str

    def rows(self, keep_N: Tensor) -> "_Batch":
        """The batch with only the rows of these positions."""
        ids = [self.image_ids[position] for position in keep_N.tolist()]
        return self._replace(points_NCHW=self.points_NCHW[keep_N], labels_N=self.labels_N[keep_N], image_ids=ids)

    def product(self) -> Callable[[Tensor], Tensor]:
        """The Hessians times vectors [N, C, H, W]. The graph of the gradient is kept for as long as this is."""
        leaf_NCHW = self.points_NCHW.detach().requires_grad_()
        logits_NK = logits_at(self.network, leaf_NCHW, self.labels_N, self.image_ids, self.whose)
        _, gradient_NCHW = loss_and_gradient(logits_NK, self.labels_N, leaf_NCHW, self.whose, again=True)

        def times(vector_NCHW: Tensor) -> Tensor:
            if not gradient_NCHW.requires_grad:  # it is the same everywhere
                return torch.zeros_like(vector_NCHW)
            with second_derivatives(self.whose):
                found: Tensor = torch.autograd.grad(gradient_NCHW, leaf_NCHW, vector_NCHW, retain_graph=True)[0]
            if not found.isfinite().all():
                fine_N = found.isfinite().flatten(1).all(dim=1).tolist()
                names = [own for own, is_fine in zip(self.image_ids, fine_N, strict=True) if not is_fine]
                raise FloatingPointError(f"the Hessian of {self.whose} is not finite for {len(names)}: {names[:5]}")
            return found

        return times


def _iterated(batch: _Batch, vector_NCHW: Tensor, iterations: int, tolerance: float) -> Curvature:
    count, device = len(vector_NCHW), vector_NCHW.device
    unknown_N = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
    found = Curvature(
        unknown_N,
        unknown_N.clone(),
        unknown_N.clone(),
        torch.zeros(count, dtype=torch.int64, device=device),
        torch.zeros(count, dtype=torch.bool, device=device),
    )
    times = batch.product()
    held_H = torch.arange(count, device=device)  # positions of the images in the graph
    for iteration in range(1, iterations + 1):
        image_HCHW = times(vector_NCHW)
        vector_HP, image_HP = vector_NCHW.flatten(1).double(), image_HCHW.flatten(1).double()
        value_H = (vector_HP * image_HP).sum(dim=1)
        residual_H = (image_HP - value_H[:, None] * vector_HP).norm(dim=1)
        change_H = (value_H - found.value_B[held_H]).abs() / value_H.abs().clamp_min(torch.finfo(torch.float64).tiny)
        is_zero_H = ~image_HP.any(dim=1)
        change_H = torch.where(is_zero_H, 0.0, change_H)
        settled_H = (change_H <= tolerance) & (residual_H <= tolerance**0.5 * value_H.abs())
        open_H = ~found.converged_B[held_H]  # what has converged stays in the graph, but is as it was
        at = held_H[open_H]
        found.value_B[at], found.change_B[at] = value_H[open_H], change_H[open_H]
        found.residual_B[at], found.iterations_B[at] = residual_H[open_H], iteration
        found.converged_B[at] = settled_H[open_H]
        left_H = (~found.converged_B[held_H]).nonzero()[:, 0]
        if not len(left_H) or iteration == iterations:
            break
        vector_NCHW = _unit(image_HCHW)
        if 2 * len(left_H) <= len(held_H):
            del times  # and its graph, before the next one
            batch, held_H, vector_NCHW = batch.rows(left_H), held_H[left_H], vector_NCHW[left_H]
            times = batch.product()
    return found


def _unit(vector_NCHW: Tensor) -> Tensor:
    """The vectors at length 1; zero stays zero. In float64, in which squares of small float32 numbers are not lost."""
    vector_NP = vector_NCHW.flatten(1).double()
    length_N1 = vector_NP.norm(dim=1, keepdim=True)
    unit_NP = vector_NP / torch.where(length_N1 > 0, length_N1, 1.0)
    return unit_NP.to(vector_NCHW.dtype).view(vector_NCHW.shape)
