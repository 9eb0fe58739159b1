"""Random numbers that depend on the image and on their use alone.

An image's noise is determined by (seed, image id, step, part). The batch that the image is in, the worker, the device
and the order of the work have no influence, so results do not change with the number of workers.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Its n-th output is a function of the key and of n, so
that no state has to be kept or passed on, and it needs integer tensor arithmetic only: a whole batch is drawn at once,
and CPU and GPU agree bit for bit, which torch's own generators do not.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 with the same 64 bits. Torch lacks uint64 arithmetic, but int64 wraps around in the same way."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical right shift of int64. Torch's own `>>` is arithmetic: it fills with the sign bit."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser, elementwise on int64 of any shape: similar inputs give unrelated outputs."""
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_MIX_1)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_MIX_2)
    return bits ^ _shift_right(bits, 31)


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
    count = 1
    for length in shape:
        count *= length
    counters = torch.arange(1, count + 1, dtype=torch.int64, device=keys_B.device) * _signed(_GAMMA)
    return _mix(keys_B[:, None] + counters[None, :]).reshape(len(keys_B), *shape)


def uniform(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1) for each key, float32 [B, *shape].

    They are multiples of 2^-24, made of the upper 24 bits: that is as many as a float32 holds without rounding.
    """
    return _shift_right(random_bits(keys_B, shape), 40).to(torch.float32) * 2.0**-24


def numbered_keys(keys_N: Tensor, numbers_N: Tensor) -> Tensor:
    """A key for each key and number, such as the number of a copy: int64 [N], or what the two shapes broadcast to."""
    return _mix(keys_N ^ ((numbers_N + 1) * _signed(_GAMMA)))


def normal(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Numbers of the standard normal distribution for each key, float32 [B, *shape] (Box and Muller 1958)."""
    draws_B2S = uniform(keys_B, (2, *shape))
    radius_BS = torch.sqrt(-2 * torch.log(1 - draws_B2S[:, 0]))  # 1 - u lies in (0, 1]
    return radius_BS * torch.cos(2 * math.pi * draws_B2S[:, 1])
