"""Random numbers: the published generator's, uniform, and dependent on seed, image id, step and part alone."""

import pytest
import torch
from scipy import stats

from align_core.randomness import image_keys, part_keys, random_bits, uniform

BITS = (1 << 64) - 1


def unsigned(bits):
    return [value & BITS for value in bits.flatten().tolist()]


def split_mix_64(seed, count):
    """The authors' own implementation (splitmix64.c), translated to Python's unbounded integers."""
    outputs = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & BITS
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
        outputs.append(z ^ (z >> 31))
    return outputs


def test_bits_are_the_published_outputs_of_split_mix_64():
    assert unsigned(random_bits(torch.tensor([1234567]), (5,))) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("key", [0, 1, -1, 2**63 - 1, -(2**63), -987654321987654321])
def test_bits_are_those_of_unsigned_arithmetic_for_any_key(key):
    assert unsigned(random_bits(torch.tensor([key]), (20,))) == split_mix_64(key & BITS, 20)


def test_uniform_takes_the_upper_24_bits_in_the_order_of_the_shape():
    keys = torch.tensor([42, -43])
    drawn = uniform(keys, (2, 3))
    assert drawn.dtype == torch.float32 and drawn.shape == (2, 2, 3)
    expected = [[output >> 40 for output in split_mix_64(key & BITS, 6)] for key in keys.tolist()]
    assert (drawn.flatten(1) * 2**24).tolist() == expected


def test_uniform_is_uniform_on_zero_to_one():
    drawn = uniform(part_keys(image_keys(0, [f"{row:05d}" for row in range(200)]), 0, "start"), (1000,))
    assert drawn.min() >= 0 and drawn.max() < 1
    assert stats.kstest(drawn.flatten().double().numpy(), "uniform").pvalue > 0.01
    # The first numbers of many keys must be as uniform as many numbers of one key.
    assert stats.kstest(drawn[:, 0].double().numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("seed", "image_id", "step", "part"),
    [
        (1, "00000", 0, "start"),
        (0, "00001", 0, "start"),
        (0, "00000", 1, "start"),
        (0, "00000", 0, "variance/neighbour 0"),
    ],
)
def test_noise_of_another_seed_image_step_or_part_is_independent(seed, image_id, step, part):
    noise = uniform(part_keys(image_keys(0, ["00000"]), 0, "start"), (20_000,))[0].double().numpy()
    other = uniform(part_keys(image_keys(seed, [image_id]), step, part), (20_000,))[0].double().numpy()
    assert stats.pearsonr(noise, other).pvalue > 0.01
    # Nor is one sequence the other, shifted by one number.
    assert stats.pearsonr(noise[1:], other[:-1]).pvalue > 0.01
    assert stats.pearsonr(noise[:-1], other[1:]).pvalue > 0.01


def test_no_two_uses_share_a_key():
    ids = [f"{row:04d}" for row in range(1000)]
    keys = [
        part_keys(image_keys(seed, ids), step, part)
        for seed in (0, 1, 2)
        for step in range(10)
        for part in ("start", "di/0", "di/1", "variance/neighbour 0")
    ]
    assert len(torch.cat(keys).unique()) == 3 * 10 * 4 * 1000


def test_an_images_noise_does_not_depend_on_its_batch():
    def noise(ids):
        return dict(zip(ids, uniform(part_keys(image_keys(5, ids), 2, "start"), (3, 4, 4)), strict=True))

    together, reordered, alone = noise(["a", "b", "c"]), noise(["c", "a"]), noise(["c"])
    assert torch.equal(alone["c"], together["c"]) and torch.equal(reordered["c"], together["c"])
    assert torch.equal(reordered["a"], together["a"])
