"""Random numbers that depend on the image and on their use alone.

An image's noise is determined by (seed, image id, step, part). The batch that the image is in, the worker, the device
and the order of the work have no influence, so results do not change with the number of workers.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Its n-th output is a function of the key and of n, so
that no state has to be kept or passed on, and it needs integer tensor arithmetic only: a whole batch is drawn at once,
and CPU and GPU agree bit for bit, which torch's own generators do not.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_CACHED = 1 << 16  # numbers that are drawn at once on a CPU


def _signed(value: int) -> int:
    """The int64 with the same 64 bits. Torch lacks uint64 arithmetic, but int64 wraps around in the same way."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical right shift of int64. Torch's own `>>` is arithmetic: it fills with the sign bit."""
    shifted = bits >> by
    shifted &= (1 << (64 - by)) - 1
    return shifted


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser, elementwise on int64 of any shape: similar inputs give unrelated outputs."""
    mixed = bits ^ _shift_right(bits, 30)
    mixed *= _signed(_MIX_1)
    mixed ^= _shift_right(mixed, 27)
    mixed *= _signed(_MIX_2)
    mixed ^= _shift_right(mixed, 31)
    return mixed


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def image_keys(seed: int, image_ids: Sequence[str]) -> Tensor:
    """A key for each image, int64 [B]: a hash of the seed and the image's id."""
    return torch.tensor([_digest(f"{seed}/{image_id}") for image_id in image_ids], dtype=torch.int64)


def part_keys(keys_B: Tensor, step: int, part: str) -> Tensor:
    """Keys for one use of the images' random numbers, int64 [B].

    Args:
        keys_B: keys from `image_keys`, int64 [B].
        step: number of the attack's step, or of the training epoch.
        part: name of the use, such as `start`. Different parts and steps draw independent numbers.
    """
    return _mix(keys_B ^ _signed(_digest(part) + step * _GAMMA))


def random_bits(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """The generator's first outputs for each key, in the order of `shape`: int64 [B, *shape]."""
    counters = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=keys_B.device) * _signed(_GAMMA)
    return _mix(keys_B[:, None] + counters[None, :]).reshape(len(keys_B), *shape)


def uniform(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1) for each key, float32 [B, *shape].

    They are multiples of 2^-24, made of the upper 24 bits: that is as many as a float32 holds without rounding.
    """
    return _drawn(_uniform, keys_B, shape)


def _uniform(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    return _shift_right(random_bits(keys_B, shape), 40).to(torch.float32).mul_(2.0**-24)


def numbered_keys(keys_N: Tensor, numbers_N: Tensor) -> Tensor:
    """A key for each key and number, such as the number of a copy: int64 [N], or what the two shapes broadcast to."""
    return _mix(keys_N ^ ((numbers_N + 1) * _signed(_GAMMA)))


def normal(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Numbers of the standard normal distribution for each key, float32 [B, *shape] (Box and Muller 1958)."""
    return _drawn(_normal, keys_B, shape)


def _normal(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    draws_B2S = _uniform(keys_B, (2, *shape))
    radius_BS = (1 - draws_B2S[:, 0]).log_().mul_(-2).sqrt_()  # 1 - u lies in (0, 1]
    return radius_BS.mul_((draws_B2S[:, 1] * (2 * math.pi)).cos_())


def _drawn(draw: Callable[[Tensor, Sequence[int]], Tensor], keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """What `draw` returns, drawn on a CPU for a few keys at a time, so that its int64 numbers stay in the cache."""
    at_once = max(1, _CACHED // max(1, math.prod(shape)))
    if keys_B.device.type != "cpu" or len(keys_B) <= at_once:
        return draw(keys_B, shape)
    numbers = torch.empty((len(keys_B), *shape))
    for keys, place in zip(torch.split(keys_B, at_once), torch.split(numbers, at_once), strict=True):
        place.copy_(draw(keys, shape))
    return numbers
