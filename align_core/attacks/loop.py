"""The iterative attack: it takes images and a surrogate, and returns 8-bit adversarial images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from align_core.attacks import objectives
from align_core.attacks.checks import check_batch, check_images, check_logits
from align_core.attacks.config import AttackConfig
from align_core.attacks.gradients import gaussian_kernel, smooth
from align_core.attacks.transforms import resize_and_pad
from align_core.attacks.updates import accumulate, project, round_inside
from align_core.errors import InputError
from align_core.randomness import image_keys, part_keys, uniform

Draw = Callable[[str], Tensor]
"""Given the name of a random part of the current step, returns a key per image, int64 [B]."""
Forward = Callable[[Tensor], Tensor]
"""Pixels [B, C, H, W] to logits [B, K]."""


def craft(
    surrogate: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    attack: AttackConfig,
    seed: int,
) -> Tensor:
    """Crafts an adversarial image for each image on one surrogate.

    Args:
        surrogate: maps float pixels in [0, 1] to logits [B, K]. It is run in eval mode without parameter gradients, and
            is left in the modes in which it was found.
        images_BCHW: uint8 images, the centres of the balls.
        labels_B: int64 labels, which the attack leads away from.
        image_ids: an id per image. Together with `seed` they decide the attack's random numbers.
        attack: the method and its settings.
        seed: seed of all random numbers.

    Returns uint8 [B, C, H, W], whose l-infinity distance from the images is at most `attack.eps`. Raises
    InputError where the arguments do not fit each other or the surrogate, and FloatingPointError, naming the images,
    where the surrogate's gradient is not finite.
    """
    return crafted(surrogate, images_BCHW, labels_B, image_ids, attack, seed).images_BCHW


class Crafted(NamedTuple):
    """Adversarial images, uint8 [B, C, H, W], and whether the gradient of each was zero at every step, bool [B]."""

    images_BCHW: Tensor
    without_gradient_B: Tensor


def crafted(
    surrogate: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    attack: AttackConfig,
    seed: int,
) -> Crafted:
    """As `craft`, and says of which images the surrogate had no gradient: these the attack could not lead anywhere.

    It happens where the surrogate's logits are saturated, or where it rounds or cuts off its input.
    """
    check_batch(surrogate, images_BCHW, labels_B, image_ids, attack, seed)
    forward = _checked(surrogate, labels_B)
    centre_BCHW = images_BCHW.to(torch.float32) / 255
    keys_B = image_keys(seed, image_ids).to(images_BCHW.device)
    adversarial_BCHW = centre_BCHW
    if attack.random_start:
        noise_BCHW = 2 * uniform(part_keys(keys_B, 0, "start"), centre_BCHW.shape[1:]) - 1
        adversarial_BCHW = project(centre_BCHW + attack.eps * noise_BCHW, centre_BCHW, attack.eps)
    momentum_BCHW = torch.zeros_like(centre_BCHW)
    variance_BCHW = torch.zeros_like(centre_BCHW)
    finite_B = torch.ones_like(labels_B, dtype=torch.bool)
    still_B = torch.ones_like(finite_B)
    with torch.enable_grad(), _frozen(surrogate):
        for step in range(attack.steps):

            def draw(part: str, step: int = step) -> Tensor:
                return part_keys(keys_B, step, part)

            lookahead = attack.step * attack.momentum * momentum_BCHW if attack.nesterov else 0.0
            gradient_BCHW = _gradient(forward, adversarial_BCHW + lookahead, labels_B, attack, draw)
            tuned_BCHW = gradient_BCHW + variance_BCHW
            if attack.neighbours and step + 1 < attack.steps:  # only the next step would use this variance
                variance_BCHW = _variance(forward, adversarial_BCHW, gradient_BCHW, labels_B, attack, draw)
            if attack.momentum:
                momentum_BCHW = accumulate(momentum_BCHW, tuned_BCHW, attack.momentum)
            direction_BCHW = momentum_BCHW if attack.momentum else tuned_BCHW
            # sign() turns NaN into 0, so that a broken gradient would otherwise pass as an image without change.
            finite_B &= direction_BCHW.isfinite().flatten(1).all(dim=1)
            still_B &= ~gradient_BCHW.flatten(1).any(dim=1)
            adversarial_BCHW = adversarial_BCHW + attack.step * direction_BCHW.sign()
            adversarial_BCHW = project(adversarial_BCHW, centre_BCHW, attack.eps)
    if not finite_B.all():
        names = [image_id for image_id, fine in zip(image_ids, finite_B.tolist(), strict=True) if not fine]
        raise FloatingPointError(f"the surrogate's gradient is not finite for {len(names)} images: {names[:5]}")
    return Crafted(round_inside(adversarial_BCHW, images_BCHW, attack.eps), still_B)


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


def _checked(surrogate: nn.Module, labels_B: Tensor) -> Forward:
    """The surrogate's forward pass, whose logits are checked against the labels."""
    largest = int(labels_B.max())

    def forward(images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = surrogate(images_BCHW)
        check_logits(logits_BK, len(images_BCHW), largest)
        return logits_BK

    return forward


def _gradient(forward: Forward, images_BCHW: Tensor, labels_B: Tensor, attack: AttackConfig, draw: Draw) -> Tensor:
    """The gradient of the objective with respect to the images [B, C, H, W].

    It is averaged over scaled copies (SI), taken through the random resizing (DI) and smoothed (TI), as `attack` says.
    """
    climbed: objectives.Objective = getattr(objectives, attack.objective)
    images_BCHW = images_BCHW.detach().requires_grad_()
    total_BCHW = torch.zeros_like(images_BCHW)
    for copy in range(attack.copies):
        seen_BCHW = images_BCHW / 2**copy if copy else images_BCHW
        if attack.diversity:
            seen_BCHW = resize_and_pad(seen_BCHW, draw(f"di/{copy}"), attack.diversity, attack.diversity_size)
        # The sum, because with the mean an image's gradient would depend on the size of its batch.
        objective = climbed(forward(seen_BCHW), labels_B).sum()
        total_BCHW = total_BCHW + torch.autograd.grad(objective, images_BCHW)[0]
    gradient_BCHW = total_BCHW / attack.copies if attack.copies > 1 else total_BCHW
    return smooth(gradient_BCHW, gaussian_kernel(attack.kernel)) if attack.kernel else gradient_BCHW


def _variance(
    forward: Forward,
    adversarial_BCHW: Tensor,
    gradient_BCHW: Tensor,
    labels_B: Tensor,
    attack: AttackConfig,
    draw: Draw,
) -> Tensor:
    """Variance tuning (Wang and He 2021, equation 7): the mean gradient at random neighbours minus the gradient."""
    total_BCHW = torch.zeros_like(gradient_BCHW)
    for neighbour in range(attack.neighbours):

        def draw_for(part: str, neighbour: int = neighbour) -> Tensor:
            return draw(f"{part}/neighbour {neighbour}")

        noise_BCHW = 2 * uniform(draw_for("variance"), adversarial_BCHW.shape[1:]) - 1
        near_BCHW = adversarial_BCHW + attack.neighbourhood * attack.eps * noise_BCHW
        total_BCHW += _gradient(forward, near_BCHW, labels_B, attack, draw_for)
    return total_BCHW / attack.neighbours - gradient_BCHW


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Puts the module into eval mode without parameter gradients, and restores all modes and flags at the end."""
    modes = [(part, part.training) for part in module.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter, needs_gradient in wanted:
            parameter.requires_grad_(needs_gradient)
