"""Gradients of the objective on a surrogate, averaged over views, in passes of a bounded size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from align_core.attacks.cost import copies_of
from align_core.attacks.objectives import Objective
from align_core.attacks.others import Others
from align_core.attacks.views import Rows, seen_through

Forward = Callable[[Tensor], Tensor]
"""Pixels [N, C, H, W] to logits [N, K]."""
Views = Sequence[dict[str, Any]]
"""Views with their settings, as `parts.read_view` returns them."""


@dataclass(frozen=True)
class Gradients:
    """The gradient of an objective, seen through views, for the images of one batch.

    Args:
        forwards: pixels to logits, of each network whose objectives are averaged.
        objective: what is maximised.
        views: as `parts.read_view` returns them.
        combine: what is averaged over the copies, `gradients` or `logits`.
        labels_B, wanted_B: of the batch; `wanted_B` is None unless the attack is targeted.
        unit: see `Rows`.
        others: images to mix in, or None.
        most: rows that one pass through the surrogate takes.
    """

    forwards: Sequence[Forward]
    objective: Objective
    views: Views
    combine: str
    labels_B: Tensor
    wanted_B: Tensor | None
    unit: float
    others: Others | None
    most: int

    def __call__(self, points_SBCHW: Tensor, keys_SB: Tensor | None) -> Tensor:
        """The gradients at the points: see `samples.At.gradients`."""
        views = self.views if keys_SB is not None else ()
        points_PCHW = points_SBCHW.flatten(0, 1)
        keys_P = torch.zeros(len(points_PCHW), dtype=torch.int64, device=points_PCHW.device)
        keys_P = keys_P if keys_SB is None else keys_SB.flatten()
        of_batch_P = torch.arange(len(self.labels_B), device=points_PCHW.device).repeat(len(points_SBCHW))
        size = max(1, self.most // copies_of(views))
        parts = [
            self._of_points(points_PCHW[at : at + size], keys_P[at : at + size], of_batch_P[at : at + size], views)
            for at in range(0, len(points_PCHW), size)
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(points_SBCHW.shape)

    def _of_points(self, points_PCHW: Tensor, keys_P: Tensor, of_batch_P: Tensor, views: Views) -> Tensor:
        """The gradients at some points. Their copies are a pass; where one point has too many, they are several."""
        first = views[0]["copies"] if views else 1
        inner = max(1, copies_of(views) // first)
        size = first if self.combine == "logits" else min(first, max(1, self.most // (inner * len(points_PCHW))))
        total_PCHW = torch.zeros_like(points_PCHW)
        for start in range(0, first, size):
            numbers = range(start, min(start + size, first))
            leaf_PCHW = points_PCHW.detach().requires_grad_()
            value = self._seen(leaf_PCHW, keys_P, of_batch_P, views, numbers)
            total_PCHW = total_PCHW + torch.autograd.grad(value, leaf_PCHW)[0]
        count = 1 if self.combine == "logits" else first * inner
        return total_PCHW / count if count > 1 else total_PCHW

    def _seen(
        self,
        images_PCHW: Tensor,
        keys_P: Tensor,
        of_batch_P: Tensor,
        views: Views,
        numbers: range,
    ) -> Tensor:
        """The sum of the objective over all copies: with the mean a gradient would depend on the size of its batch."""
        labels_P = self.labels_B[of_batch_P]
        wanted_P = None if self.wanted_B is None else self.wanted_B[of_batch_P]

        def of_rows(copies: int) -> Callable[[Tensor], Tensor]:
            labels_N, wanted_N = _repeated(labels_P, copies), None if wanted_P is None else _repeated(wanted_P, copies)
            return lambda images_NCHW: self._over_networks(
                [self.objective(forward(images_NCHW), labels_N, wanted_N) for forward in self.forwards]
            )

        if not views:
            return of_rows(1)(images_PCHW).sum()
        copies_P = torch.zeros_like(keys_P)
        rows = Rows(images_PCHW, keys_P, copies_P, 1, labels_P, self.unit, self.others, of_rows(1))
        rows = seen_through(views, rows, numbers, of_rows)
        if self.combine == "gradients":
            return rows.objective(rows.images_NCHW).sum()
        found = []
        for forward in self.forwards:
            logits_NK = forward(rows.images_NCHW)
            mean_PK = logits_NK.view(len(images_PCHW), -1, logits_NK.shape[1]).mean(dim=1)
            found.append(self.objective(mean_PK, labels_P, wanted_P))
        return self._over_networks(found).sum()

    @staticmethod
    def _over_networks(values: Sequence[Tensor]) -> Tensor:
        return values[0] if len(values) == 1 else torch.stack(tuple(values)).mean(dim=0)


def _repeated(values_P: Tensor, copies: int) -> Tensor:
    return values_P[:, None].expand(-1, copies).flatten()
