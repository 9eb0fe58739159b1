"""Each rule over samples a second time: for one image, in float64, as its paper writes it.

They draw the numbers that `align_core.attacks.samples` draws, from the same keys, and use no line of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from plain_views import frequencies_scaled
from torch import Tensor

from align_core.randomness import normal, numbered_keys, part_keys, uniform

Gradient = Callable[..., Tensor]


class Where(NamedTuple):
    """Where the attack on one image stands: `gradient(point, key)` is the mean over the point's views."""

    image: Tensor
    ahead: Tensor
    key: Tensor
    first_key: Tensor
    unit: float
    length: float
    last: bool
    gradient: Gradient

    def key_of(self, part: str, number: int) -> Tensor:
        return numbered_keys(part_keys(self.key, 0, part), torch.tensor([number]))

    def near(self, image: Tensor, key: Tensor, radius: float) -> Tensor:
        draws = uniform(part_keys(key, 0, "near"), image.shape)[0].double()
        return image + radius * self.unit * (2 * draws - 1)


def scaled_to_mean(gradient: Tensor) -> Tensor:
    size = gradient.abs().mean()
    return gradient / size if size else gradient


def likeness(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()) / (one.norm() * other.norm()))


def single(at: Where, memory: Any) -> tuple[Tensor, Any]:
    return at.gradient(at.ahead, at.key_of("gradient", 0)), None


def variance(at: Where, memory: Any, count: int, radius: float) -> tuple[Tensor, Any]:
    """Wang and He (2021, algorithm 1): the variance of this step tunes the gradient of the next."""
    own = at.gradient(at.ahead, at.key_of("variance", 0))
    tuned = own if memory is None else own + memory
    if at.last:
        return tuned, None
    keys = [at.key_of("variance", number) for number in range(1, count + 1)]
    return tuned, sum(at.gradient(at.near(at.image, key, radius), key) for key in keys) / count - own


def line(at: Where, memory: Any, count: int, radius: float) -> tuple[Tensor, Any]:
    """Wang, Lin, Wang and Xie (2021, equation 5): from -radius to radius steps along the last mean gradient."""
    factors = [0.0] if memory is None or count == 1 else np.linspace(-radius, radius, count)
    last = 0 if memory is None else scaled_to_mean(memory)
    gradients = [
        at.gradient(at.ahead + float(factor) * at.length * last, at.key_of("line", number))
        for number, factor in enumerate(factors)
    ]
    return torch.stack(gradients).mean(dim=0), torch.stack(gradients).mean(dim=0)


def relevance(at: Where, memory: Any, count: int, radius: float) -> tuple[Tensor, Any]:
    """Zhu et al. (2023): s g + (1 - s) g', with s the cosine of the gradient g and the neighbours' mean g'."""
    own = at.gradient(at.ahead, at.key_of("relevance", 0))
    keys = [at.key_of("relevance", number) for number in range(1, count + 1)]
    mean = sum(at.gradient(at.near(at.ahead, key, radius), key) for key in keys) / count
    share = likeness(own, mean)
    return share * own + (1 - share) * mean, None


def penalty(at: Where, memory: Any, count: int, radius: float, share: float) -> tuple[Tensor, Any]:
    """Ge et al. (2023, algorithm 1): g1 at a neighbour, g2 a step against g1 from it; (1 - share) g1 + share g2."""
    total: Any = 0
    for number in range(count):
        key = at.key_of("penalty", number)
        point = at.near(at.ahead, key, radius)
        first = at.gradient(point, key)
        second = at.gradient(point - at.length * scaled_to_mean(first), at.key_of("penalty, back", number))
        total = total + (1 - share) * first + share * second
    return total / count, None


def flatness(
    at: Where, memory: Any, count: int, radius: float, inner_radius: float, inner_decay: float
) -> tuple[Tensor, Any]:
    """Qiu et al. (2024): neighbour n moves by what its gradient was, less inner_decay times what it moved by last."""
    moves = memory or [torch.zeros_like(at.image)] * count
    total, next_moves = torch.zeros_like(at.image), []
    for number in range(count):
        key = at.key_of("flatness", number)
        gradient = at.gradient(at.near(at.ahead, key, radius) + inner_radius * at.unit * moves[number], key)
        total = total + gradient / count
        next_moves.append(scaled_to_mean(gradient) - inner_decay * moves[number])
    return total, next_moves


def frequency(at: Where, memory: Any, count: int, radius: float, rho: float) -> tuple[Tensor, Any]:
    """Wang and Wang (2024): as relevance, of neighbours behind a random spectrum, weighted by their likeness."""
    own = at.gradient(at.ahead, at.key_of("frequency, own", 0))
    total = torch.zeros_like(own)
    for number in range(count):
        key = at.key_of("frequency", number)
        draws = uniform(part_keys(key, 0, "frequencies"), at.image.shape)[0].double()

        def through(image: Tensor, draws: Tensor = draws) -> Tensor:
            return frequencies_scaled(image, draws, rho)

        point = at.near(at.ahead, key, radius)
        total = total + likeness(at.ahead, through(point)) * at.gradient(point, key, through)
    share = likeness(own, total)
    return share * own + (1 - share) * total, None


def integrated(at: Where, memory: Any, count: int) -> tuple[Tensor, Any]:
    """Sundararajan et al. (2017): the image times the mean of d F(k / S image) / d image."""
    total = torch.zeros_like(at.ahead)
    for number in range(count):
        share = (number + 1) / count
        total = total + share * at.gradient(share * at.ahead, at.key_of("integrated", number))
    return at.ahead * total / count, None


def noise(at: Where, memory: Any, count: int, deviation: float) -> tuple[Tensor, Any]:
    total = torch.zeros_like(at.ahead)
    for number in range(count):
        key = at.key_of("noise", number)
        bell = normal(part_keys(key, 0, "deviation"), at.image.shape)[0].double()
        total = total + at.gradient(at.ahead + deviation * at.unit * bell, key) / count
    return total, None


def pool(at: Where, memory: Any, count: int, radius: float, copies: int = 1) -> tuple[Tensor, Any]:
    """Guo et al. (2025): the plain gradient and those of `count` of a fixed pool of noises, each through its views."""
    draws = uniform(part_keys(at.key, 0, "pool"), (6 * count,))[0].tolist()
    chosen = sorted(range(6 * count), key=draws.__getitem__)[:count]
    total = at.gradient(at.ahead, None)
    for number, which in enumerate(chosen):
        noise_key = numbered_keys(part_keys(at.first_key, 0, "pool"), torch.tensor([which]))
        width = radius * at.unit * [0.25, 0.5, 0.75, 1.0, 1.25, 1.5][which // count]
        point = at.ahead + width * (2 * uniform(noise_key, at.image.shape)[0].double() - 1)
        total = total + copies * at.gradient(point, at.key_of("pool, views", number))
    return total / (count * copies + 1), None


RULES: dict[str, Callable[..., tuple[Tensor, Any]]] = {
    function.__name__: function
    for function in (variance, line, relevance, penalty, flatness, frequency, integrated, noise, pool)
}
