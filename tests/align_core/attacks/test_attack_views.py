"""What views and rules show to the surrogate, and that the numbers that they draw have the distributions stated."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from attack_setting import EPS, Recorder, Setting, attack_of, quick, random_images
from torch import Tensor
from torch.nn import functional as F

from align_core.attacks import VIEWS, Others, craft
from align_core.attacks.parts import read_view
from align_core.attacks.views import Rows, seen_through
from align_core.attacks.views.block_shuffle import _shuffled
from align_core.attacks.views.spectrum import cosine_matrix, frequencies_scaled, frequency_factors
from align_core.randomness import image_keys, part_keys, uniform

MANY = image_keys(0, [str(row) for row in range(4000)])


def seen(images: Tensor, view: dict[str, Any], keys: Tensor = MANY, others: Others | None = None) -> Tensor:
    """The images as a view shows them, a copy each unless it has more."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    rows = Rows(
        images, keys[: len(images)], labels, 1, labels, EPS, others, lambda images: images.flatten(1).sum(dim=1)
    )
    read = read_view({"copies": 1, **view})
    return seen_through([read], rows, range(read["copies"]), lambda _: rows.objective).images_NCHW


def boxes(count: int, height: int, width: int, probability: float, smallest: float) -> list[tuple[int, ...]]:
    """Position and size of each image after DI, (top, left, height, width), measured on white images."""
    white = torch.ones(count, 1, height, width)
    return [box(image) for image in seen(white, di(probability, smallest))]


def di(probability: float, smallest: float) -> dict[str, Any]:
    return {"name": "resize_pad", "probability": probability, "smallest": smallest}


def box(image: Tensor) -> tuple[int, ...]:
    rows, columns = (image[0] > 0.5).any(dim=1).nonzero(), (image[0] > 0.5).any(dim=0).nonzero()
    return int(rows[0]), int(columns[0]), len(rows), len(columns)


@pytest.mark.parametrize(("height", "width", "smallest"), [(32, 32, 0.9), (32, 32, 0.5), (20, 30, 0.7)])
def test_di_is_interpolate_and_pad_image_by_image(height: int, width: int, smallest: float) -> None:
    images = random_images(40, 3, height, width) / 255
    diverse = seen(images, di(1.0, smallest))
    for image, ours, (top, left, high, wide) in zip(
        images, diverse, boxes(40, height, width, 1.0, smallest), strict=True
    ):
        shrunk = F.interpolate(image[None], (high, wide), mode="bilinear", antialias=False, align_corners=False)[0]
        expected = F.pad(shrunk, (left, width - left - wide, top, height - top - high))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_di_draws_sides_places_and_whether_at_all_for_each_image() -> None:
    always = boxes(4000, 32, 32, 1.0, 0.9)
    assert {high for _, _, high, _ in always} == {28, 29, 30, 31}  # 0.9 * 32 = 28.8 is rounded down
    assert all(high == wide for _, _, high, wide in always)
    smallest = [(top, left) for top, left, high, _ in always if high == 28]
    assert set(smallest) == set(itertools.product(range(5), range(5)))  # every possible position occurs
    half = boxes(4000, 32, 32, 0.5, 0.9)
    untouched = [place == (0, 0, 32, 32) for place in half]
    assert scipy.stats.binomtest(sum(untouched), 4000, 0.5).pvalue > 0.01
    touched = {drawn for drawn, place in zip(always, half, strict=True) if place == drawn}
    # Whether an image is transformed is independent of its size.
    assert {high for _, _, high, _ in touched} == {28, 29, 30, 31}
    assert all(same or place == drawn for place, drawn, same in zip(half, always, untouched, strict=True))


def test_di_with_probability_0_leaves_images_as_they_are() -> None:
    images = random_images(40, 3, 32, 32) / 255
    assert torch.equal(seen(images, di(0.0, 0.5)), images)


def test_the_loop_draws_di_afresh_for_each_step_image_and_seed(small: Setting) -> None:
    def places(seed: int) -> list[list[tuple[int, ...]]]:
        recorder = Recorder(small.net)
        white = Setting(recorder, torch.full_like(small.images, 255), small.labels)
        white.craft("di", seed, steps=4, views=[di(1.0, 0.5)])
        return [[box(image) for image in images] for images in recorder.seen]

    first, again, other = places(0), places(0), places(1)
    assert first == again
    assert len({place for step in first for place in step}) > 25  # of 4 steps of 8 images; a few may coincide
    assert not {tuple(step) for step in first} & {tuple(step) for step in other}


def test_si_shows_copies_scaled_by_powers_of_two(small: Setting) -> None:
    recorder = Recorder(small.net)
    replace(small, net=recorder).craft("sini", steps=1, views=[{"name": "scale", "copies": 3}])
    shown = torch.cat(recorder.seen).view(8, 3, *small.images.shape[1:])
    for number, scale in enumerate((1, 2, 4)):
        torch.testing.assert_close(shown[:, number], small.images / 255 / scale)


@pytest.mark.parametrize("side", [1, 2, 7, 32])
def test_the_cosine_transform_is_scipys_orthonormal_one(side: int) -> None:
    np.testing.assert_allclose(cosine_matrix(side), scipy.fft.dct(np.eye(side), axis=0, norm="ortho"), atol=1e-12)
    images = random_images(3, 3, side, 9).double() / 255
    factors = frequency_factors(MANY[:3], images.shape[1:], 0.8).double()
    torch.testing.assert_close(factors, 1 - 0.8 + 2 * 0.8 * uniform(MANY[:3], images.shape[1:]).double())
    expected = scipy.fft.idctn(
        factors.numpy() * scipy.fft.dctn(images.numpy(), axes=(2, 3), norm="ortho"), axes=(2, 3), norm="ortho"
    )
    np.testing.assert_allclose(frequencies_scaled(images, factors), expected, atol=1e-12)


def test_the_gradient_through_scaled_frequencies_is_scaled_as_images_are() -> None:
    images, towards = (random_images(2, 3, 7, 6).double() / 255 for _ in range(2))
    factors = frequency_factors(MANY[:2], images.shape[1:], 0.8).double()
    images.requires_grad_()
    (gradient,) = torch.autograd.grad((frequencies_scaled(images, factors) * towards).sum(), images)
    torch.testing.assert_close(gradient, frequencies_scaled(towards, factors))


def test_ssa_adds_gaussian_noise_of_eps_and_scales_evenly() -> None:
    grey = torch.full((600, 1, 4, 4), 0.5)
    noise = (seen(grey, {"name": "spectrum", "rho": 0.0}) - 0.5) / EPS
    assert scipy.stats.kstest(noise.flatten().double().numpy(), "norm").pvalue > 0.01
    factors = seen(grey, {"name": "spectrum", "noise": 0.0}).mean(dim=(1, 2, 3)) / 0.5  # of the lowest frequency
    assert scipy.stats.kstest(factors.double().numpy(), scipy.stats.uniform(0.5, 1).cdf).pvalue > 0.01


def test_others_are_drawn_evenly_among_all_images_of_other_labels() -> None:
    levels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1) * 10
    others = Others(levels, torch.tensor([0, 1, 0, 2, 3, 0, 1, 2]))
    drawn = seen(torch.zeros(4000, 1, 1, 1), {"name": "admix", "share": 1.0}, others=others) * 25.5
    counts = Counter(drawn.flatten().round().int().tolist())
    assert sorted(counts) == [1, 3, 4, 6, 7]  # the labels of the images are 0
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 0.01


def test_where_all_images_have_the_label_others_are_drawn_among_all() -> None:
    others = Others(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), torch.tensor([0, 0]))
    drawn = seen(torch.zeros(100, 1, 1, 1), {"name": "admix", "share": 1.0}, others=others)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}


def test_sia_draws_each_of_seven_operators_as_often() -> None:
    """One block, that is the whole image: each operator leaves its own trace on an image of six different levels."""
    image = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]).expand(4000, 1, 2, 3)
    shown = seen(image, {"name": "block_operators", "blocks": 1})[:, 0]
    names = Counter()
    for found in shown:
        tens = (found * 10).round(decimals=4)
        moved = sorted(tens.flatten().tolist()) == pytest.approx([1, 2, 3, 4, 5, 6])
        flips = {
            "top to bottom": image[0, 0].flip(0),
            "left to right": image[0, 0].flip(1),
            "turned": image[0, 0].rot90(2),
        }
        name = next((name for name, flipped in flips.items() if torch.allclose(found, flipped)), None)
        if name is None:
            ratio = found / image[0, 0]
            name = "shifted" if moved else "dimmed" if ratio.std() < 1e-5 else "noisy"
        names[name] += 1
    # A shift down by one row of two is a flip; shifts by nothing leave the image as it is.
    sevenths = 4000 / 7
    expected = {
        "left to right": 1, "turned": 1, "dimmed": 1, "noisy": 1, "top to bottom": 1.5, "shifted": 1.5,
    }  # fmt: skip
    wanted = [sevenths * share for share in expected.values()]
    assert scipy.stats.chisquare([names[name] for name in expected], wanted).pvalue > 0.01


def test_bsr_shows_every_pixel_once_in_pieces_that_are_all_of_some_length() -> None:
    image = torch.arange(1.0, 145).view(1, 1, 12, 12)
    shown = seen(image.expand(300, -1, -1, -1), {"name": "block_shuffle", "degrees": 0.0})
    assert torch.equal(shown.flatten(1).sort(dim=1).values, image.flatten(1).expand(300, -1))
    assert len({tuple(one.flatten().tolist()) for one in shown}) == 300
    # Of shares from 1 to 2, one of three is from 1/5 to 1/2: of 12 pixels 2 to 6, and one more for the longest.
    _, _, first, last = _shuffled(MANY, (), 3, 12)
    lengths = (last - first + 1).flatten()
    assert (int(lengths.min()), int(lengths.max())) == (2, 6)


@pytest.mark.parametrize(
    ("method", "rule", "spread"),
    [
        ("vmi", {"name": "variance", "count": 4, "radius": 0.5}, 0.5),
        ("gra", {"name": "relevance", "count": 4, "radius": 2.0}, 2.0),
        ("pgn", {"name": "penalty", "count": 4, "radius": 3.0, "share": 0.0}, 3.0),
        ("mef", {"name": "flatness", "count": 4, "radius": 1.0, "inner_radius": 0.0}, 1.0),
    ],
)
def test_neighbours_are_drawn_evenly_and_afresh_for_each_use(
    method: str, rule: dict[str, Any], spread: float, small: Setting
) -> None:
    recorder = Recorder(small.net)
    replace(small, net=recorder).craft(method, steps=1 if method != "vmi" else 2, step=1e-6, samples=rule)
    shown = torch.cat(recorder.seen)
    own = small.images / 255
    noise = (shown.view(-1, 8, *own.shape[1:]) - own).flatten(2)[: 5 if method in ("vmi", "gra") else 4]
    drawn = (noise[noise.abs().amax(dim=(1, 2)) > 1e-4] / (spread * EPS)).flatten(0, 1).double().numpy()
    assert len(drawn) == 32
    assert scipy.stats.kstest(drawn.flatten(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    # Every use draws noise of its own. With 1,200 numbers, chance correlations have a standard deviation of 0.03.
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.2


def test_pgd_starts_at_a_uniform_point_of_the_ball(small: Setting) -> None:
    recorder = Recorder(small.net)
    replace(small, net=recorder).craft("pgd", steps=1)
    (start,) = recorder.seen
    images = small.images / 255
    inside = (images > EPS) & (images < 1 - EPS)  # elsewhere the ball is cut off by the pixel range
    noise = ((start - images) / EPS)[inside]
    assert scipy.stats.kstest(noise.double().numpy(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert start.min() >= 0 and start.max() <= 1


def test_ops_takes_noises_of_six_radii_from_a_pool_that_stays_the_same(small: Setting) -> None:
    recorder = Recorder(small.net)
    attack = {"views": [], "samples": {"name": "pool", "count": 60, "radius": 2.0}}
    replace(small.rows([0]), net=recorder).craft("ops", steps=6, step=1e-7, eps=0.01, **attack)
    shown = torch.cat(recorder.seen).view(6, 61, -1)
    noise = shown[:, 1:] - shown[:, :1]
    radii = (noise.abs().amax(dim=2) / (2 * 0.01 * 0.25)).ceil()
    assert scipy.stats.chisquare([int((radii == number).sum()) for number in range(1, 7)]).pvalue > 0.01
    repeated = (noise[0][:, None] - noise[1][None]).abs().amax(dim=2) < 1e-5
    assert 2 < int(repeated.sum()) < 25  # of 60 that are drawn from 360, ten are expected to have been seen before


@pytest.mark.parametrize("view", VIEWS)
def test_copies_differ_and_an_image_draws_the_same_alone_and_in_any_batch(view: str) -> None:
    """Bit for bit: what is drawn is integer arithmetic on the image's key."""
    images = random_images(5, 3, 12, 10) / 255
    others = Others(random_images(9, 3, 12, 10).flip(3), torch.arange(9) % 3)
    written = {"name": view, "copies": 4, **({"probability": 1.0} if view == "resize_pad" else {})}
    together = seen(images, written, others=others).view(5, 4, 3, 12, 10)
    alone = seen(images[3:4], written, MANY[3:4], others).view(4, 3, 12, 10)
    torch.testing.assert_close(alone, together[3], atol=1e-5, rtol=0)
    assert len({one.numpy().tobytes() for one in together[0]}) == 4
    keys = part_keys(MANY, 3, "step")
    draws = uniform(keys, (3, 12, 10))
    assert torch.equal(uniform(keys[7:8], (3, 12, 10))[0], draws[7]) and torch.equal(
        uniform(keys.flip(0), (2,)), uniform(keys, (2,)).flip(0)
    )


@pytest.mark.parametrize("method", ["ssa", "vmi", "bsr", "admix", "ops"])
def test_steps_and_images_of_equal_pixels_draw_their_own(method: str, small: Setting) -> None:
    """An image under two names, and steps that move nothing: only what is drawn differs."""
    attack = attack_of(method, **{**quick(method, most=6), "step": 1e-12})
    image = small.images[:1].clamp(50, 200)  # a black pixel would move even by this

    def shown(image_id: str, steps: int) -> list[bytes]:
        recorder = Recorder(small.net)
        craft(
            recorder, image, small.labels[:1], [image_id], replace(attack, steps=steps), 0,
            others=small.others,
        )  # fmt: skip
        return [row.numpy().tobytes() for row in torch.cat(recorder.seen)]

    rows, twin = shown("a", 3), shown("b", 3)
    length = len(rows) - len(shown("a", 2))  # of a step; the last may be shorter
    first, second, of_twin = set(rows[:length]), set(rows[length : 2 * length]), set(twin[:length])
    assert len(first) >= 6
    # The image as it is may be among them, and a few of the other images may be drawn again.
    assert len(first & second) <= len(first) / 2 and len(first & of_twin) <= len(first) / 2
