"""Random numbers that depend on what they are for, and on nothing else.

The noise that an image meets comes from (seed, image id, step, part): not from the batch it is in, the worker, the
device or the order of the work. It is a counter-based generator, SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), in
integer tensor arithmetic, so a whole batch is drawn at once and CPU and GPU agree bit for bit.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 with the same 64 bits: torch has no unsigned arithmetic, but wraps as if it had."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical shift; torch's own drags the sign along."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser: int64 of any shape -> int64 whose bits look independent."""
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_MIX_1)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_MIX_2)
    return bits ^ _shift_right(bits, 31)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def image_keys(seed: int, image_ids: Sequence[str]) -> Tensor:
    """A key for each image: int64 [B], from the seed and the image's id."""
    return torch.tensor([_digest(f"{seed}/{image_id}") for image_id in image_ids], dtype=torch.int64)


def part_keys(keys_B: Tensor, step: int, part: str) -> Tensor:
    """Keys for one use of the images' randomness, int64 [B]: `part` names it, `step` counts it."""
    return _mix(keys_B ^ _signed(_digest(part) + step * _GAMMA))


def random_bits(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """The generator's outputs 1, 2, ... for each key: int64 [B, *shape]."""
    count = 1
    for length in shape:
        count *= length
    counters = torch.arange(1, count + 1, dtype=torch.int64, device=keys_B.device) * _signed(_GAMMA)
    return _mix(keys_B[:, None] + counters[None, :]).reshape(len(keys_B), *shape)


def uniform(keys_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform in [0, 1), float32 [B, *shape], from the upper 24 bits."""
    return _shift_right(random_bits(keys_B, shape), 40).to(torch.float32) * 2.0**-24
