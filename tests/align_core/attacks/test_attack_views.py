"""DI and SI: the transformed images on which the surrogate is called."""

import itertools
from dataclasses import replace

import pytest
import scipy.stats
import torch
from attack_setting import Recorder, Setting, random_images
from torch import Tensor
from torch.nn import functional as F

from align_core.attacks.transforms import resize_and_pad
from align_core.randomness import image_keys, part_keys


def boxes(keys: Tensor, height: int, width: int, probability: float, smallest: float) -> list[tuple[int, ...]]:
    """Position and size of each image after DI, (top, left, height, width), measured on white images."""
    white = torch.ones(len(keys), 1, height, width)
    return [box(image) for image in resize_and_pad(white, keys, probability, smallest)]


def box(image: Tensor) -> tuple[int, ...]:
    rows, columns = (image[0] > 0.5).any(dim=1).nonzero(), (image[0] > 0.5).any(dim=0).nonzero()
    return int(rows[0]), int(columns[0]), len(rows), len(columns)


@pytest.mark.parametrize(("height", "width", "smallest"), [(32, 32, 0.9), (32, 32, 0.5), (20, 30, 0.7)])
def test_di_is_interpolate_and_pad_image_by_image(height, width, smallest):
    keys = part_keys(image_keys(0, [str(row) for row in range(40)]), 0, "di/0")
    images = random_images(40, 3, height, width) / 255
    diverse = resize_and_pad(images, keys, 1.0, smallest)
    places = boxes(keys, height, width, 1.0, smallest)
    for image, ours, (top, left, high, wide) in zip(images, diverse, places, strict=True):
        shrunk = F.interpolate(image[None], (high, wide), mode="bilinear", antialias=False, align_corners=False)[0]
        expected = F.pad(shrunk, (left, width - left - wide, top, height - top - high))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_di_draws_sides_places_and_whether_at_all_for_each_image():
    keys = part_keys(image_keys(0, [str(row) for row in range(4000)]), 0, "di/0")
    always = boxes(keys, 32, 32, 1.0, 0.9)
    assert {high for _, _, high, _ in always} == {28, 29, 30, 31}  # 0.9 * 32 = 28.8 is rounded down
    assert all(high == wide for _, _, high, wide in always)
    smallest = [(top, left) for top, left, high, _ in always if high == 28]
    assert set(smallest) == set(itertools.product(range(5), range(5)))  # every possible position occurs
    half = boxes(keys, 32, 32, 0.5, 0.9)
    untouched = [place == (0, 0, 32, 32) for place in half]
    assert scipy.stats.binomtest(sum(untouched), 4000, 0.5).pvalue > 0.01
    touched = {drawn for drawn, place in zip(always, half, strict=True) if place == drawn}
    # Whether an image is transformed is independent of its size.
    assert {high for _, _, high, _ in touched} == {28, 29, 30, 31}
    assert all(same or place == drawn for place, drawn, same in zip(half, always, untouched, strict=True))


def test_di_with_probability_0_leaves_images_as_they_are():
    images = random_images(40, 3, 32, 32) / 255
    keys = part_keys(image_keys(0, [str(row) for row in range(40)]), 0, "di/0")
    torch.testing.assert_close(resize_and_pad(images, keys, 0.0, 0.5), images, atol=1e-4, rtol=0)


def test_the_loop_draws_di_afresh_for_each_step_image_and_seed(small):
    def places(seed):
        recorder = Recorder(small.net)
        white = Setting(recorder, torch.full_like(small.images, 255), small.labels)
        white.craft("di", seed, steps=4, diversity=1.0, diversity_size=0.5)
        return [[box(image) for image in seen] for seen in recorder.seen]

    first, again, other = places(0), places(0), places(1)
    assert first == again
    assert len({place for step in first for place in step}) > 25  # of 4 steps of 8 images; a few may coincide
    assert not {tuple(step) for step in first} & {tuple(step) for step in other}


def test_si_shows_copies_scaled_by_powers_of_two(small):
    recorder = Recorder(small.net)
    replace(small, net=recorder).craft("sini", steps=1, copies=3)
    for seen, scale in zip(recorder.seen, (1, 2, 4), strict=True):
        torch.testing.assert_close(seen, small.images / 255 / scale)
