"""Attacks whose code is not ours: those of the packages torchattack and pyautoattack, and the user's own callables.

A callable is called as `attack(surrogate, images_BCHW, labels_B, eps=..., step=..., steps=..., **args)`, with float
pixels in [0, 1], and with `wanted_B`, the classes to lead to, as a further keyword where the attack is targeted. It
returns float pixels of the same shape. The surrogate maps pixels in [0, 1] to logits, and normalises them itself; it is
in eval mode, and its parameters need no gradient.

What an attack does is checked, not trusted: what it returns, and what it leaves of the surrogate. It sees the batch as
a whole and draws from the global random states, so that its results depend on the batch.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from align_core.attacks.autoattack_door import autoattack_runner, check_autoattack
from align_core.attacks.foreign_config import ForeignConfig
from align_core.attacks.torchattack_door import torchattack_attack
from align_core.attacks.updates import round_inside
from align_core.errors import InputError
from align_core.own_code import imported, own_code
from align_core.randomness import image_keys

_TOLERANCE = 1e-4 / 255
_TOLERANCE_OF_LENGTH = 1e-5  # lengths are sums of many values, which attacks round in float32


class Misbehaved(InputError):
    """An attack whose code is not ours raised an error, or did what no attack may do. It would do so again."""


class ForeignImages(NamedTuple):
    """What a foreign attack made.

    Args:
        images_BCHW: adversarial images, uint8.
        gradients: forward and backward passes through the surrogate for each image, as counted.
    """

    images_BCHW: Tensor
    gradients: float


def foreign_images(
    surrogate: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    image_ids: Sequence[str],
    attack: ForeignConfig,
    seed: int,
    wanted_B: Tensor | None,
) -> ForeignImages:
    """Crafts a batch as a whole. The arguments are those of `craft`, and have been checked.

    Random states are seeded from the seed and the id of the first image, and are afterwards as they were. The surrogate
    is left as it was found. Raises Misbehaved, which names the attack, where it raises anything, where it changes a
    weight of the surrogate, and where what it returns are no images in the ball; RuntimeError where another attempt may
    succeed, as when memory was short.
    """
    what = f"attack {attack.method}"
    cuda = [images_BCHW.device] if images_BCHW.device.type == "cuda" else []
    pixels_BCHW = images_BCHW.to(torch.float32) / 255
    counter = _Counter()
    try:
        with torch.random.fork_rng(cuda), own_code(what), _left_as_found(surrogate, what):
            run = _runner(attack, surrogate, images_BCHW.device)
            counter.watch(surrogate)
            _seed(int(image_keys(seed, image_ids[:1])[0]))
            made = run(pixels_BCHW.clone(), labels_B.clone(), None if wanted_B is None else wanted_B.clone())
    except InputError as problem:
        if isinstance(problem.__cause__, torch.OutOfMemoryError | MemoryError):
            raise RuntimeError(f"{what}: memory does not hold a chunk; lower compute.chunk") from problem
        if isinstance(problem.__cause__, OSError | ImportError):
            raise RuntimeError(str(problem)) from problem
        raise Misbehaved(str(problem)) from problem
    made_BCHW = _checked(made, pixels_BCHW, image_ids, attack, what)
    rounded_BCHW = round_inside(made_BCHW, images_BCHW, attack.eps, attack.norm)
    return ForeignImages(rounded_BCHW, counter.passes() / len(images_BCHW))


def check_foreign(attack: ForeignConfig, shape: tuple[int, int, int], classes: int) -> None:
    """Raises InputError where it can be known beforehand that an attack cannot be run on images of this shape.

    It must be there and take its arguments. Attacks of torchattack are tried on a tiny network, for one step.
    """
    if attack.kind == "torchattack":
        torchattack_attack(attack).try_on(shape, classes)
    elif attack.kind == "autoattack":
        check_autoattack(attack, classes)
    else:
        _check_takes(_own_callable(attack), attack)


def _runner(attack: ForeignConfig, surrogate: nn.Module, device: torch.device) -> Callable[..., Any]:
    """A function of pixels, labels and classes to lead to (or None)."""
    if attack.kind == "torchattack":
        return torchattack_attack(attack).runner(surrogate, device)
    if attack.kind == "autoattack":
        return autoattack_runner(attack, surrogate, device)
    own = _own_callable(attack)

    def run(pixels_BCHW: Tensor, labels_B: Tensor, wanted_B: Tensor | None) -> Any:
        return own(surrogate, pixels_BCHW, labels_B, **_keywords(attack, wanted_B))

    return run


def _own_callable(attack: ForeignConfig) -> Callable[..., Any]:
    found = imported(attack.name, "attack")
    if not callable(found):
        raise InputError(f"attack {attack.name}: it is a {type(found).__name__}, which cannot be called")
    own: Callable[..., Any] = found
    return own


def _keywords(attack: ForeignConfig, wanted_B: Any) -> dict[str, Any]:
    numbers = {"eps": attack.eps, "step": attack.step, "steps": attack.steps}
    return numbers | ({"wanted_B": wanted_B} if attack.is_targeted else {}) | attack.args


def _check_takes(own: Callable[..., Any], attack: ForeignConfig) -> None:
    """Raises InputError where a callable does not take the arguments that it will be given."""
    try:
        signature = inspect.signature(own)
    except (TypeError, ValueError):  # of a callable without one, such as a builtin
        return
    try:
        signature.bind(None, None, None, **_keywords(attack, None))
    except TypeError as problem:
        keys = ", ".join(_keywords(attack, None))
        raise InputError(
            f"attack {attack.name}: {problem}; it is called with (surrogate, images, labels) and the keywords {keys}"
        ) from problem


def _seed(key: int) -> None:
    number = key & (2**63 - 1)
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


class _Counter:
    """Counts the images that went forward and backward through a surrogate.

    A pass counts as often as a gradient comes back to its logits, or to its pixels where the objective is one of
    features.
    """

    def __init__(self) -> None:
        self._passes: list[_Pass] = []

    def watch(self, surrogate: nn.Module) -> None:
        """Counts from now on. The hooks go with all others that an attack leaves."""
        surrogate.register_forward_pre_hook(self._before)
        surrogate.register_forward_hook(self._after)

    def passes(self) -> int:
        """The number of images, summed over passes."""
        return sum(one.rows * max(one.at_pixels, one.at_logits) for one in self._passes)

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._passes.append(_Pass())
        pixels = inputs[0] if inputs else None
        if not (isinstance(pixels, Tensor) and pixels.requires_grad and torch.is_grad_enabled()):
            return None
        seen = pixels.view_as(pixels)  # of this pass alone: the same pixels may be shown again
        seen.register_hook(self._passes[-1].note_pixels)  # type: ignore[no-untyped-call]
        return (seen, *inputs[1:])

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], logits: Any) -> None:
        if isinstance(logits, Tensor):
            self._passes[-1].rows = len(logits)
            if logits.requires_grad:
                logits.register_hook(self._passes[-1].note_logits)  # type: ignore[no-untyped-call]


@dataclass
class _Pass:
    """One pass forward: its images, and how often a gradient came back to its pixels and to its logits."""

    rows: int = 0
    at_pixels: int = 0
    at_logits: int = 0

    def note_pixels(self, gradient: Tensor) -> None:
        self.at_pixels += 1

    def note_logits(self, gradient: Tensor) -> None:
        self.at_logits += 1


@contextmanager
def _left_as_found(module: nn.Module, what: str) -> Iterator[None]:
    """Restores modes, hooks, layers, flags and gradients of a network after the block, and its weights.

    Raises InputError where a weight or a buffer was changed.
    """
    parts = [
        (vars(part), {name: (value, _held(value)) for name, value in vars(part).items()}) for part in module.modules()
    ]
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    kept = {name: (own, own.detach().clone(), own.requires_grad, own.grad) for name, own in tensors.items()}
    changed: list[str] = []
    for own in tensors.values():
        own.grad = None  # backward would add to it in place
    try:
        yield
    finally:
        now = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        changed = [name for name in kept if name not in now or not _equal(now[name], kept[name][1])]
        for attributes, were in parts:
            attributes.clear()
            for name, (value, held) in were.items():
                attributes[name] = value
                if held is not None:
                    value.clear()
                    value.update(held)
        for own, value, needs_gradient, gradient in kept.values():
            if not _equal(own, value):
                own.data.copy_(value)
            own.requires_grad_(needs_gradient)
            own.grad = gradient
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(f"{what} changes the surrogate's weights ({changed[0]}{more}), which no attack may do")


def _held(value: Any) -> Any:
    """A copy of what a dictionary or set holds, such as hooks and layers; None for other values."""
    return value.copy() if isinstance(value, dict | set) else None


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    if torch.equal(one, other):
        return True
    return one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _checked(made: Any, pixels_BCHW: Tensor, image_ids: Sequence[str], attack: ForeignConfig, what: str) -> Tensor:
    """The float pixels that an attack returned. Raises Misbehaved unless they are images in the ball."""
    if not isinstance(made, Tensor) or not made.is_floating_point():
        found = str(made.dtype) if isinstance(made, Tensor) else type(made).__name__
        raise Misbehaved(f"{what} returns {found}, and must return a tensor of float pixels in [0, 1]")
    if made.shape != pixels_BCHW.shape:
        shapes = tuple(made.shape), tuple(pixels_BCHW.shape)
        raise Misbehaved(f"{what} returns pixels of shape {shapes[0]} for images of shape {shapes[1]}")
    made_BCHW = made.detach().to(pixels_BCHW.device)
    _refuse(~made_BCHW.isfinite().flatten(1).all(dim=1), image_ids, f"{what} returns pixels that are not finite")
    made_BN, clean_BN = made_BCHW.double().flatten(1), pixels_BCHW.double().flatten(1)
    outside_B = (made_BN.amin(dim=1) < -_TOLERANCE) | (made_BN.amax(dim=1) > 1 + _TOLERANCE)
    _refuse(outside_B, image_ids, f"{what} returns pixels outside [0, 1]")
    if attack.norm == "linf":
        distance_B, most = (made_BN - clean_BN).abs().amax(dim=1), attack.eps + _TOLERANCE
    else:
        distance_B = (made_BN - clean_BN).norm(dim=1)
        most = attack.eps * (1 + _TOLERANCE_OF_LENGTH) + _TOLERANCE
    furthest = f"one is {float(distance_B.max()):.4g} away from its image"
    _refuse(
        distance_B > most, image_ids, f"{what} leaves the {attack.norm} ball of radius {attack.eps:.4g}: {furthest}"
    )
    return made_BCHW.to(torch.float32)


def _refuse(bad_B: Tensor, image_ids: Sequence[str], message: str) -> None:
    names = [image_id for image_id, bad in zip(image_ids, bad_B.tolist(), strict=True) if bad]
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise Misbehaved(f"{message} ({', '.join(names[:5])}{more})")
