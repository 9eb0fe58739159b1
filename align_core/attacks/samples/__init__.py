"""Samples: rules that make one gradient of those at several points. A file holds one, the function of its own name.

A rule takes `At`, where the attack stands, and what it remembered from the step before (None at the first), and returns
the gradient [B, C, H, W] and what to remember.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align_core.randomness import numbered_keys, part_keys, uniform


class At(NamedTuple):
    """Where an attack stands in one step.

    Args:
        image_BCHW: the adversarial images so far.
        ahead_BCHW: the points at which a plain gradient is taken: where momentum leads with Nesterov's look-ahead, else
            the images.
        keys_B: random keys of this step.
        first_keys_B: random keys that are the same in all steps.
        unit: eps in the l-infinity ball; in the l2 ball what eps is per pixel.
        stride: length of a step, in the same way.
        copies: how many copies of a point the views make.
        is_last: whether no step follows.
        gradients: the gradients at points [S, B, C, H, W], of the same shape. Keys [S, B] decide what the views draw;
            without keys there are no views.
    """

    image_BCHW: Tensor
    ahead_BCHW: Tensor
    keys_B: Tensor
    first_keys_B: Tensor
    unit: float
    stride: float
    copies: int
    is_last: bool
    gradients: Callable[..., Tensor]

    def keys_of_points(self, part: str, count: int) -> Tensor:
        """A random key for each of `count` points and each image, int64 [S, B]."""
        numbers_S1 = torch.arange(count, device=self.keys_B.device)[:, None]
        return numbered_keys(part_keys(self.keys_B, 0, part)[None], numbers_S1)

    def near(self, around_BCHW: Tensor, keys_SB: Tensor, radius: float) -> Tensor:
        """Points drawn uniformly from a cube, half of whose side is `radius` units: [S, B, C, H, W]."""
        draws = uniform(part_keys(keys_SB.flatten(), 0, "near"), around_BCHW.shape[1:]).view(-1, *around_BCHW.shape)
        return around_BCHW + radius * self.unit * (2 * draws - 1)


Memory = Any
Combine = Callable[[At, Memory], tuple[Tensor, Memory]]


def rule_function(rule: dict[str, Any] | None) -> Combine:
    """The function of a rule, from the file of its name, with its settings; without a rule, that of one gradient."""
    if rule is None:
        return _one_gradient
    function: Combine = getattr(import_module(f"{__name__}.{rule['name']}"), rule["name"])
    return partial(function, **{key: value for key, value in rule.items() if key != "name"})


def _one_gradient(at: At, memory: Memory) -> tuple[Tensor, Memory]:
    return at.gradients(at.ahead_BCHW[None], at.keys_of_points("gradient", 1))[0], memory


def per_mean(gradient: Tensor) -> Tensor:
    """A gradient [..., C, H, W] divided by its mean absolute value; one that is zero stays zero."""
    size = gradient.abs().mean(dim=(-3, -2, -1), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(size.dtype).tiny)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """The cosine between gradients [..., C, H, W], as [..., 1, 1, 1]; 0 where one of them is zero."""
    inner = (one * other).sum(dim=(-3, -2, -1), keepdim=True)
    lengths = one.flatten(-3).norm(dim=-1) * other.flatten(-3).norm(dim=-1)
    ratio: Tensor = inner / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)[..., None, None, None]
    return ratio
