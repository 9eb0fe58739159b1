"""The iterative attack: it takes images and a surrogate, and returns 8-bit adversarial images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from align_core.attacks.checks import check_batch, check_images, check_logits
from align_core.attacks.config import PASS_ROWS, AttackConfig
from align_core.attacks.cost import copies_of, points_of
from align_core.attacks.ensembles import InTurn, networks_in_turn
from align_core.attacks.foreign import foreign_images
from align_core.attacks.foreign_config import ForeignConfig
from align_core.attacks.gradients import gaussian, smooth
from align_core.attacks.objectives import objective_function
from align_core.attacks.others import Others
from align_core.attacks.samples import At, rule_function
from align_core.attacks.surrogate import Forward, Gradients
from align_core.attacks.updates import accumulate, direction, project, random_point, round_inside, slowed
from align_core.errors import InputError
from align_core.models import predicting
from align_core.randomness import image_keys, part_keys


class Crafted(NamedTuple):
    """What an attack made.

    Args:
        images_BCHW: adversarial images, uint8.
        without_gradient_B: whether the gradient of each was zero at every step, bool.
        pass_rows: rows of one pass: as asked for, or fewer, where memory did not hold them; None for an attack whose
            code is not ours.
        gradients: forward and backward passes for each image: as the settings state them, or as counted for an attack
            whose code is not ours.
    """

    images_BCHW: Tensor
    without_gradient_B: Tensor
    pass_rows: int | None
    gradients: float


def craft(
    surrogate: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    attack: AttackConfig | ForeignConfig,
    seed: int,
    *,
    wanted_B: Tensor | None = None,
    others: Others | None = None,
    pass_rows: int | None = None,
) -> Tensor:
    """Crafts an adversarial image for each image on one surrogate.

    Args:
        surrogate: maps float pixels in [0, 1] to logits [B, K]. It is run in eval mode without parameter gradients, and
            is left in the modes in which it was found.
        images_BCHW: uint8 images, the centres of the balls.
        labels_B: int64 labels, which an untargeted attack leads away from.
        image_ids: an id per image. Together with `seed` they decide the attack's random numbers.
        attack: the method and its settings.
        seed: seed of all random numbers.
        wanted_B: int64 classes that a targeted attack leads to.
        others: images of the image set that the attack may mix in; needed where `attack.needs_others`.
        pass_rows: how many rows one pass through the surrogate takes; by default that of `PASS_ROWS`. Sums over passes
            are rounded differently, so that the number changes single pixels. An attack that is not ours sees all
            images at once, and its results depend on the batch.

    Returns uint8 [B, C, H, W] within the ball of `attack.eps`. Raises InputError where the arguments do not fit each
    other or the surrogate, and FloatingPointError, naming the images, where the surrogate's gradient is not finite.
    What an attack that is not ours may raise besides stands in `foreign.foreign_images`.
    """
    return crafted(
        surrogate, images_BCHW, labels_B, image_ids, attack, seed, wanted_B=wanted_B, others=others, pass_rows=pass_rows
    ).images_BCHW


def crafted(
    surrogate: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    attack: AttackConfig | ForeignConfig,
    seed: int,
    *,
    wanted_B: Tensor | None = None,
    others: Others | None = None,
    pass_rows: int | None = None,
) -> Crafted:
    """As `craft`, and says of which images the surrogate had no gradient: these the attack could not lead anywhere.

    It happens where the surrogate's logits are saturated, or where it rounds or cuts off its input.
    """
    check_batch(surrogate, images_BCHW, labels_B, image_ids, attack, seed, wanted_B, others)
    attack = attack.for_images(images_BCHW.shape[1], max(images_BCHW.shape[2:]))
    if isinstance(attack, ForeignConfig):
        with torch.enable_grad(), predicting(surrogate, frozen=True):
            foreign = foreign_images(surrogate, images_BCHW, labels_B, image_ids, attack, seed, wanted_B)
        none_B = torch.zeros_like(labels_B, dtype=torch.bool)
        return Crafted(foreign.images_BCHW, none_B, None, foreign.gradients)
    largest = int((labels_B if wanted_B is None else torch.maximum(labels_B, wanted_B)).max())
    in_turn = networks_in_turn(surrogate, partial(_checked, largest=largest), seed)
    keys_B = image_keys(seed, image_ids).to(images_BCHW.device)
    rows = pass_rows or PASS_ROWS.get(images_BCHW.device.type, PASS_ROWS["cuda"])

    def attacked(part: slice, rows: int) -> _Batch:
        wanted = None if wanted_B is None else wanted_B[part]
        return _attacked(in_turn, images_BCHW[part], labels_B[part], wanted, keys_B[part], attack, others, rows)

    with torch.enable_grad(), predicting(surrogate, frozen=True):
        made, rows = _within_memory(attacked, len(images_BCHW), partial(_images_per_pass, attack), rows)
    images, still, finite = (torch.cat(parts) for parts in zip(*made, strict=True))
    if not finite.all():
        names = [image_id for image_id, fine in zip(image_ids, finite.tolist(), strict=True) if not fine]
        raise FloatingPointError(f"the surrogate's gradient is not finite for {len(names)} images: {names[:5]}")
    return Crafted(images, still, rows, attack.gradients)


class _Batch(NamedTuple):
    """Adversarial images, uint8, whether each never had a gradient, and whether its gradients were finite."""

    images_BCHW: Tensor
    still_B: Tensor
    finite_B: Tensor


def _attacked(
    in_turn: InTurn,
    images_BCHW: Tensor,
    labels_B: Tensor,
    wanted_B: Tensor | None,
    keys_B: Tensor,
    attack: AttackConfig,
    others: Others | None,
    most: int,
) -> _Batch:
    """Attacks the images of one batch, step by step."""
    centre_BCHW = images_BCHW.to(torch.float32) / 255
    share = 1.0 if attack.norm == "linf" else 1 / math.sqrt(centre_BCHW[0].numel())
    unit = attack.eps * share
    objective = objective_function(attack.objective)
    gradients = Gradients(in_turn(0), objective, attack.views, attack.combine, labels_B, wanted_B, unit, others, most)
    combined = rule_function(attack.rule)
    bell_S = gaussian(int(attack.kernel)) if attack.kernel else None
    start_BCHW = centre_BCHW
    if attack.random_start:
        start_BCHW = random_point(centre_BCHW, part_keys(keys_B, 0, "start"), attack.eps, attack.norm)
    adversarial_BCHW, memory = start_BCHW, None
    momentum_BCHW = torch.zeros_like(centre_BCHW)
    pace_BCHW = torch.full_like(centre_BCHW, 1 / attack.step_decay)
    finite_B = torch.ones_like(labels_B, dtype=torch.bool)
    still_B = torch.ones_like(finite_B)
    steps = attack.warm_start + attack.steps
    for step in range(steps):
        if step == attack.warm_start:
            adversarial_BCHW = start_BCHW
        length = attack.step * (attack.warm_stride if step < attack.warm_start else 1.0)
        at = At(
            image_BCHW=adversarial_BCHW,
            ahead_BCHW=adversarial_BCHW + length * share * attack.momentum * momentum_BCHW
            if attack.nesterov
            else adversarial_BCHW,
            keys_B=part_keys(keys_B, step, "step"),
            first_keys_B=keys_B,
            unit=unit,
            stride=length * share,
            copies=copies_of(attack.views),
            is_last=step + 1 == steps,
            gradients=replace(gradients, forwards=in_turn(step)),
        )
        gradient_BCHW, memory = combined(at, memory)
        if bell_S is not None:
            gradient_BCHW = smooth(gradient_BCHW, bell_S)
        last_BCHW, climb_BCHW = momentum_BCHW, gradient_BCHW
        if attack.momentum:
            momentum_BCHW = accumulate(momentum_BCHW, gradient_BCHW, attack.momentum, attack.normalized)
            climb_BCHW = momentum_BCHW
        # sign() turns NaN into 0, so that a broken gradient would otherwise pass as an image without change.
        finite_B &= climb_BCHW.isfinite().flatten(1).all(dim=1)
        still_B &= ~gradient_BCHW.flatten(1).any(dim=1)
        stride_BCHW = length * direction(climb_BCHW, attack.norm)
        if attack.step_decay < 1:
            compared_BCHW = last_BCHW if attack.step_decay_by == "momentum" else gradient_BCHW
            pace_BCHW = slowed(pace_BCHW, compared_BCHW, momentum_BCHW, attack.step_decay)
            stride_BCHW = stride_BCHW * pace_BCHW
        adversarial_BCHW = project(adversarial_BCHW + stride_BCHW, centre_BCHW, attack.eps, attack.norm)
    return _Batch(round_inside(adversarial_BCHW, images_BCHW, attack.eps, attack.norm), still_B, finite_B)


def distances(adversarial_BCHW: Tensor, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The l-infinity and the l2 distance between two uint8 batches, image by image.

    Returns two float32 tensors [B], in fractions of the pixel range. Raises InputError for other batches.
    """
    check_images("the adversarial images", adversarial_BCHW)
    check_images("the images", images_BCHW)
    if adversarial_BCHW.shape != images_BCHW.shape:
        shapes = tuple(adversarial_BCHW.shape), tuple(images_BCHW.shape)
        raise InputError(f"batches of shape {shapes[0]} and {shapes[1]} cannot be compared image by image")
    difference_BN = (adversarial_BCHW.to(torch.float32) - images_BCHW.to(torch.float32)).flatten(1) / 255
    return difference_BN.abs().amax(dim=1), difference_BN.norm(dim=1)


def _images_per_pass(attack: AttackConfig, rows: int) -> int:
    """How many images are attacked at once: as many as fill a pass with all their points and copies."""
    return max(1, rows // (points_of(attack.rule) * copies_of(attack.views)))


def _within_memory(
    attacked: Callable[[slice, int], _Batch], count: int, size_of: Callable[[int], int], rows: int
) -> tuple[list[_Batch], int]:
    """Attacks `count` images, batch by batch, in passes of so many rows, and returns the batches and the rows.

    Where memory does not hold a batch, the rows are halved, and what is left is cut anew into batches that fill so
    small a pass: the points and draws of all images of a batch lie in memory at once, beside the pass.
    """
    made: list[_Batch] = []
    left = _batches(0, count, size_of(rows))
    while left:
        try:
            made.append(attacked(left[0], rows))
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows = rows // 2
            left = _batches(left[0].start, count, size_of(rows))
        else:
            left = left[1:]
    return made, rows


def _batches(start: int, stop: int, size: int) -> list[slice]:
    """Slices of at most `size`, and of nearly equal length: a small last one would be slow."""
    count = stop - start
    number = math.ceil(count / size)
    return [slice(start + count * part // number, start + count * (part + 1) // number) for part in range(number)]


def _checked(network: nn.Module, largest: int) -> Forward:
    """The network's forward pass, whose logits are checked against the largest class."""

    def forward(images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = network(images_BCHW)
        check_logits(logits_BK, len(images_BCHW), largest)
        return logits_BK

    return forward
