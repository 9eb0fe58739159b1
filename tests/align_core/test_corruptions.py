"""Corruptions: each against another implementation or its distribution, and an image is the same in every batch."""

import colorsys
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align_core.corruptions.corrupt import corrupted
from align_core.corruptions.known import CORRUPTIONS, SEVERITIES, Corruption, strength
from align_core.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
IDS = ["a", "b", "c", "d"]
GREY = np.full((2, 3, 32, 32), 128, dtype=np.uint8)


def made(name: str, severity: int, images: Any = IMAGES, ids: Any = IDS, seed: int = 0) -> Any:
    return corrupted(images, ids[: len(images)], Corruption(name, severity), seed)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_every_batch_and_otherwise_by_another_seed(name: str, severity: int) -> None:
    whole, alone = made(name, severity), made(name, severity, IMAGES[2:3], ["c"])
    assert np.array_equal(whole[2:3], alone)
    assert whole.dtype == np.uint8 and whole.shape == IMAGES.shape and (whole != IMAGES).any()
    other = made(name, severity, seed=1)
    assert np.array_equal(whole, other) != CORRUPTIONS[name].draws
    assert np.array_equal(IMAGES, np.random.default_rng(0).integers(0, 256, IMAGES.shape, dtype=np.uint8))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_is_stronger(name: str) -> None:
    smooth = np.broadcast_to(np.linspace(40, 200, 32, dtype=np.uint8), (1, 3, 32, 32)).copy()
    smooth[:, 1:] //= 2
    smooth[:, :, ::3] //= 2
    distances = [np.abs(made(name, own, smooth).astype(float) - smooth).mean() for own in SEVERITIES]
    # Of saturation, two severities take it away and three add to it.
    assert distances[:2] == sorted(distances[:2]) and distances[2:] == sorted(distances[2:])
    assert min(distances) > 0


@pytest.mark.parametrize("name", [own for own in CORRUPTIONS if own != "saturate"])
@pytest.mark.parametrize("side", [32, 96])
def test_grey_images_and_images_of_any_sides(name: str, side: int) -> None:
    images = RNG.integers(0, 256, (1, 1, side, side // 2), dtype=np.uint8)
    assert made(name, 3, images).shape == images.shape


def test_gaussian_noise_has_its_deviation() -> None:
    noise = made("gaussian_noise", 1, GREY).astype(float) - GREY
    assert noise.std() == pytest.approx(0.04 * 255, rel=0.05) and abs(noise.mean()) < 1


def test_shot_noise_has_the_variance_of_light() -> None:
    noise = made("shot_noise", 3, GREY).astype(float) - GREY
    assert noise.std() == pytest.approx(255 * np.sqrt(128 / 255 / 100), rel=0.05) and abs(noise.mean()) < 1


def test_impulse_noise_replaces_its_share_by_black_and_white_alike() -> None:
    many = np.repeat(GREY, 8, axis=0)
    noisy = corrupted(many, [str(row) for row in range(len(many))], Corruption("impulse_noise", 5), 0)
    assert np.isin(noisy, (0, 128, 255)).all()
    assert (noisy == 0).mean() == pytest.approx(0.035, rel=0.1)
    assert (noisy == 255).mean() == pytest.approx(0.035, rel=0.1)


def test_blur_spreads_a_point_by_a_normal_kernel() -> None:
    point = np.zeros((1, 1, 33, 33), dtype=np.uint8)
    point[0, 0, 16, 16] = 255
    places = np.arange(33) - 16
    kernel = np.exp(-(places**2) / 2)
    kernel[np.abs(places) > 4] = 0
    kernel /= kernel.sum()
    assert np.array_equal(made("gaussian_blur", 5, point)[0, 0], np.round(255 * np.outer(kernel, kernel)))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_colours_are_those_of_the_standard_library(name: str, severity: int) -> None:
    """Hue, saturation and value by colorsys, which gives grey pixels the hue of red."""
    images = IMAGES[:1, :, :8, :8].copy()
    images[0, :, 0, 0], images[0, :, 0, 1], images[0, :, 0, 2] = 0, 90, 255
    change = strength(Corruption(name, severity), 8)
    expected = np.empty_like(images)
    for y in range(8):
        for x in range(8):
            hue, saturation, value = colorsys.rgb_to_hsv(*images[0, :, y, x] / 255)
            if isinstance(change, tuple):
                saturation = min(max(saturation * change[0] + change[1], 0), 1)
            else:
                value = min(value + change, 1)
            expected[0, :, y, x] = np.round(np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255)
    assert np.abs(made(name, severity, images).astype(int) - expected.astype(int)).max() <= 1


def test_contrast_of_two_pixels_by_hand() -> None:
    images = np.array([[[[100, 200]]]], dtype=np.uint8)
    assert made("contrast", 2, images).ravel().tolist() == [125, 175]


def test_large_images_have_the_severities_of_imagenet_c() -> None:
    images = np.array([100, 200], dtype=np.uint8).repeat(50)[None, None, None]
    assert set(made("contrast", 2, images).ravel().tolist()) == {135, 165}


def test_pixelate_and_jpeg_are_those_of_pillow() -> None:
    picture = Image.fromarray(IMAGES[0].transpose(1, 2, 0))
    small = picture.resize((24, 24), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    assert np.array_equal(made("pixelate", 4)[0].transpose(1, 2, 0), np.asarray(small))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=58)
    assert np.array_equal(made("jpeg", 3)[0].transpose(1, 2, 0), np.asarray(Image.open(file)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (IMAGES, IDS, Corruption("gausian_noise", 1), 0),
            "no corruption 'gausian_noise'; did you mean 'gaussian_noise'",
        ),
        ((IMAGES, IDS, Corruption("jpeg", 6), 0), "severities are 1, 2, 3, 4 and 5, not 6"),
        ((IMAGES / 255, IDS, Corruption("jpeg", 1), 0), r"images must be uint8 \[B, 1 or 3, H, W\], not float64"),
        ((IMAGES, IDS[:2], Corruption("jpeg", 1), 0), "4 images need as many ids, not 2"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrupted(*arguments)
