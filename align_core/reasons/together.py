"""All reasons of one surrogate on some images at once, and those that compare it with one other network.

A column is named `MEASURE/POINT`, such as `curvature/clean`, and holds a value for each image. `POINTS` are three; of a
loss slice the point is the factor, such as `loss_along/0.5`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_core.reasons.agreement import cosine, prediction_divergence, top1_agreement
from align_core.reasons.calibration import entropy, first_class
from align_core.reasons.curvature import curvature
from align_core.reasons.gradient_norm import gradient_norm
from align_core.reasons.linearity import largest_linearity_error, linearity_error
from align_core.reasons.loss_slice import loss_slice
from align_core.reasons.orthogonal import orthogonal_share
from align_core.reasons.passes import NoGradient, Passed, gradients, losses
from align_core.reasons.points import orthogonal_direction, random_points

FACTORS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Of the loss slices: 0 is the clean image, and 1 along the attack the attacked one."""

Columns = dict[str, Tensor]
"""A value for each image, [B], float64 or bool, by `MEASURE/POINT`."""
At = Mapping[str, Passed]
"""What a network makes of the points, by their names."""


@dataclass(frozen=True)
class Batch:
    """Images, and the points at which networks are measured.

    Args:
        clean_BCHW: float pixels in [0, 1].
        attacked_BCHW: the surrogate's own adversarial images, within the ball.
        labels_B, image_ids: of the images.
        seed: of all that is drawn, by image id: the same for every surrogate.
        eps, norm: of the ball.
    """

    clean_BCHW: Tensor
    attacked_BCHW: Tensor
    labels_B: Tensor
    image_ids: Sequence[str]
    seed: int
    eps: float
    norm: str

    @property
    def points(self) -> dict[str, Tensor]:
        """The points by name, each [B, C, H, W]."""
        random_BCHW = random_points(self.clean_BCHW, self.image_ids, self.seed, self.eps, self.norm)
        return {"clean": self.clean_BCHW, "random": random_BCHW, "attacked": self.attacked_BCHW}


def passes_at(network: nn.Module, batch: Batch, *, whose: str, pass_rows: int | None = None) -> dict[str, Passed]:
    """Logits, loss and gradient of a surrogate at every point, which all its reasons begin with: three gradients."""
    return {
        name: gradients(network, points_BCHW, batch.labels_B, batch.image_ids, whose=whose, pass_rows=pass_rows)
        for name, points_BCHW in batch.points.items()
    }


def own_reasons(network: nn.Module, batch: Batch, at: At, *, whose: str, pass_rows: int | None = None) -> Columns:
    """The reasons that need no other network: on a ResNet-20 for CIFAR-10, as much time as 67 gradients for each image.

    Args:
        network: the surrogate.
        at: what `passes_at` gives.
        whose, pass_rows: as in `passes.losses`.

    * `loss`, `gradient_l1`, `gradient_l2`, `curvature` and `curvature_converged` (bool) at all points;
    * `linearity` at random and attacked points, and `largest_linearity`, sought from these;
    * `loss_along` and `loss_across` the attack, at `FACTORS`.

    Where a network cannot be differentiated twice, its curvature is blank. Raises what the measures raise.
    """
    given = (batch.labels_B, batch.image_ids)
    found: Columns = {}
    for name, points_BCHW in batch.points.items():
        gradient_BCHW = at[name].gradient_BCHW
        assert gradient_BCHW is not None
        norm = gradient_norm(gradient_BCHW)
        found |= {f"loss/{name}": at[name].loss_B, f"gradient_l1/{name}": norm.l1_B, f"gradient_l2/{name}": norm.l2_B}
        try:
            bent = curvature(network, points_BCHW, *given, batch.seed, whose=whose, pass_rows=pass_rows)
            value_B, converged_B = bent.value_B, bent.converged_B
        except NoGradient:
            value_B = torch.full_like(at[name].loss_B, torch.nan)
            converged_B = torch.zeros_like(value_B, dtype=torch.bool)
        found |= {f"curvature/{name}": value_B, f"curvature_converged/{name}": converged_B}
        if name == "clean":
            continue
        error_B = linearity_error(at["clean"], at[name].loss_B, points_BCHW - batch.clean_BCHW)
        largest = largest_linearity_error(
            network, batch.clean_BCHW, *given, batch.seed, batch.eps, at=at["clean"], norm=batch.norm,
            start_BCHW=points_BCHW, whose=whose, pass_rows=pass_rows,
        )  # fmt: skip
        found |= {f"linearity/{name}": error_B, f"largest_linearity/{name}": largest.error_B}
    along_BCHW = batch.attacked_BCHW - batch.clean_BCHW
    across_BCHW = orthogonal_direction(along_BCHW, batch.image_ids, batch.seed)
    for measure, way_BCHW in (("loss_along", along_BCHW), ("loss_across", across_BCHW)):
        loss_BT = loss_slice(network, batch.clean_BCHW, *given, way_BCHW, FACTORS, whose=whose, pass_rows=pass_rows)
        found |= {f"{measure}/{factor:g}": loss_BT[:, number] for number, factor in enumerate(FACTORS)}
    return found


def passes_of_other(other: nn.Module, batch: Batch, name: str, *, whose: str, pass_rows: int | None = None) -> Passed:
    """What a witness or target makes of the points of this name, with its gradient where a reason needs it.

    At clean and random points it is the same for every surrogate. A network that has no gradient gives its logits.
    Raises what `passes.losses` raises.
    """
    given = (other, batch.points[name], batch.labels_B, batch.image_ids)
    if name != "random":
        with suppress(NoGradient):
            return gradients(*given, whose=whose, pass_rows=pass_rows)
    return losses(*given, whose=whose, pass_rows=pass_rows)


def compared_reasons(batch: Batch, at: At, its: At) -> Columns:
    """The reasons that compare a surrogate with a witness or a target, from what both make of all points.

    Args:
        at: what `passes_at` gives of the surrogate.
        its: what `passes_of_other` gives of the other network, whose gradients are for analysis alone.

    * `divergence`, KL(other || surrogate), and `agreement` on the first class (bool) at all points;
    * `cosine` of the input gradients at clean and attacked points;
    * `orthogonal_share` of the perturbation to the other network's gradient at the clean image.

    The last two are blank where it has no gradient. It takes no pass. Raises what the measures raise.
    """
    found: Columns = {}
    for name, own in at.items():
        found[f"divergence/{name}"] = prediction_divergence(its[name].logits_BK, own.logits_BK)
        found[f"agreement/{name}"] = top1_agreement(its[name].logits_BK, own.logits_BK)
        if name == "random":
            continue
        own_BCHW, its_BCHW = own.gradient_BCHW, its[name].gradient_BCHW
        blank_B = torch.full_like(own.loss_B, torch.nan)
        found[f"cosine/{name}"] = blank_B if own_BCHW is None or its_BCHW is None else cosine(own_BCHW, its_BCHW)
        if name == "clean":
            moved_BCHW = batch.attacked_BCHW - batch.clean_BCHW
            found["orthogonal_share/attacked"] = blank_B if its_BCHW is None else orthogonal_share(moved_BCHW, its_BCHW)
    return found


def softness(logits_BK: Tensor, labels_B: Tensor, temperatures: Sequence[float]) -> Columns:
    """What a witness's soft labels are at each temperature: `entropy/T` and `confidence/T`, and whether its first class
    is the label: `hit/1`, at every temperature the same.
    """
    found: Columns = {"hit/1": first_class(logits_BK, labels_B).hit_B}
    for own in temperatures:
        found[f"entropy/{own:g}"] = entropy(logits_BK, own)
        found[f"confidence/{own:g}"] = first_class(logits_BK, labels_B, own).confidence_B
    return found
