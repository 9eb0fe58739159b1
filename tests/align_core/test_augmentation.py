"""Augmentation: which crops and flips are drawn, how often, and that an image's key alone decides them."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import torch
from image_sets import Pictures, noise
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from align_core.align_config import AugmentConfig
from align_core.augmentation import augmented, random_box
from align_core.images import Fit
from align_core.images.decoding import Pixels
from align_core.randomness import image_keys, part_keys, uniform

EVERY_CONFIG = [
    AugmentConfig(crop=crop, flip=flip) for crop in ("none", "pad4", "random_resized") for flip in (False, True)
]


def drawn_of(pictures: list[Pixels], config: AugmentConfig, size: int, epoch: int = 0) -> Tensor:
    images = Pictures(pictures, Fit(size))
    return augmented(images, images.ids, config, seed=0, epoch=epoch)


def as_float(pixels_HWC: Pixels) -> npt.NDArray[np.float32]:
    return (torch.from_numpy(pixels_HWC).permute(2, 0, 1).to(torch.float32) / 255).numpy()


def test_pad4_cuts_each_of_the_81_crops_out_of_the_black_margin() -> None:
    image = noise(6, 6, 3)
    padded = np.pad(as_float(image), [(0, 0), (4, 4), (4, 4)])
    crops = {padded[:, top : top + 6, left : left + 6].tobytes() for top in range(9) for left in range(9)}
    drawn = drawn_of([image] * 4000, AugmentConfig(crop="pad4", flip=False), 6)
    counts = Counter(crop.numpy().tobytes() for crop in drawn)
    assert counts.keys() == crops
    assert len(crops) == 81
    assert min(counts.values()) > 20 and max(counts.values()) < 85  # 49 of each are expected, with deviation 7


def test_flip_mirrors_half_of_the_images() -> None:
    image = noise(5, 5, 3)
    drawn = drawn_of([image] * 2000, AugmentConfig(crop="none", flip=True), 5)
    mirrored = sum(np.array_equal(one, as_float(image)[:, :, ::-1]) for one in drawn.numpy())
    kept = sum(np.array_equal(one, as_float(image)) for one in drawn.numpy())
    assert mirrored + kept == 2000
    assert 900 < mirrored < 1100


@pytest.mark.parametrize("crop", ["pad4", "random_resized"])
def test_flip_comes_after_the_crop(crop: str) -> None:
    images = [noise(8, 8, 3, seed=seed) for seed in range(16)]
    cropped = drawn_of(images, AugmentConfig(crop=crop, flip=False), 8)
    both = drawn_of(images, AugmentConfig(crop=crop, flip=True), 8)
    mirrored = [torch.equal(one, crop.flip(2)) for one, crop in zip(both, cropped, strict=True)]
    kept = [torch.equal(one, crop) for one, crop in zip(both, cropped, strict=True)]
    assert any(mirrored) and any(kept)
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))


def boxes(width: int, height: int, count: int) -> npt.NDArray[np.int64]:
    """Random crops as rows of left, top, width and height."""
    keys = part_keys(image_keys(1, [f"{row:05d}" for row in range(count)]), 0, "random_resized")
    ends = [random_box(width, height, draws) for draws in uniform(keys, (10, 4)).tolist()]
    return np.array([(left, top, right - left, bottom - top) for left, top, right, bottom in ends])


@pytest.mark.parametrize(("width", "height"), [(64, 64), (500, 375), (231, 640), (1200, 40)])
def test_random_boxes_are_distributed_as_torchvisions(width: int, height: int) -> None:
    torch.manual_seed(0)
    picture = Image.new("L", (width, height))
    params = [RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(8000)]
    theirs = np.array([(left, top, across, down) for top, left, down, across in params])
    ours = boxes(width, height, 8000)
    for measure in (
        lambda b: b[:, 2] * b[:, 3],  # area
        lambda b: b[:, 2] / b[:, 3],  # ratio
        lambda b: b[:, 0] / np.maximum(width - b[:, 2], 1),  # where in the room that there is
        lambda b: b[:, 1] / np.maximum(height - b[:, 3], 1),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3  # of 24 comparisons
    assert ours[:, :2].min() >= 0
    assert (ours[:, 0] + ours[:, 2]).max() <= width and (ours[:, 1] + ours[:, 3]).max() <= height


@pytest.mark.parametrize(("width", "height"), [(3000, 10), (10, 3000), (100, 100), (33, 47)])
def test_where_no_attempt_fits_the_box_is_torchvisions(width: int, height: int) -> None:
    impossible = [(2.0, 0.5, 0.0, 0.0)] * 10  # beyond the area of the picture
    left, top, right, bottom = random_box(width, height, impossible)
    expected = RandomResizedCrop.get_params(Image.new("L", (width, height)), [2.0, 2.0], [3 / 4, 4 / 3])
    assert (top, left, bottom - top, right - left) == tuple(expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_random_resized_crops_the_original_picture_as_torchvision_does(interpolation: str) -> None:
    sizes = [(333, 257), (500, 375), (231, 640), (224, 224)]
    pictures = [noise(height, width, 3, seed=width) for width, height in sizes]
    images = Pictures(pictures, Fit(32, 48, interpolation))
    drawn = augmented(images, images.ids, AugmentConfig(crop="random_resized", flip=False), seed=3, epoch=7)
    keys = part_keys(image_keys(3, images.ids), 7, "random_resized")
    for picture, draws, crop in zip(pictures, uniform(keys, (10, 4)).tolist(), drawn, strict=True):
        left, top, right, bottom = random_box(picture.shape[1], picture.shape[0], draws)
        box = (top, left, bottom - top, right - left)
        expected = resized_crop(Image.fromarray(picture), *box, [32, 32], InterpolationMode(interpolation))
        assert torch.equal(crop, pil_to_tensor(expected).to(torch.float32) / 255)


def test_random_resized_shows_what_the_centre_crop_lacks() -> None:
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, :10] = 255  # a white end that no centre crop shows
    config = AugmentConfig(crop="random_resized", flip=False)
    assert drawn_of([picture], AugmentConfig(crop="none", flip=False), 20).max() == 0
    assert drawn_of([picture] * 50, config, 20).max() == 1


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=str)
def test_shape_and_range_stay(config: AugmentConfig) -> None:
    drawn = drawn_of([noise(12, 20, seed=seed) for seed in range(8)], config, 12)
    assert drawn.shape == (8, 1, 12, 12) and drawn.dtype == torch.float32
    assert drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=str)
def test_an_image_meets_the_same_whatever_batch_it_is_in(config: AugmentConfig) -> None:
    images = Pictures([noise(8, 11, 3, seed=seed) for seed in range(9)], Fit(8))
    drawn = augmented(images, images.ids, config, seed=0, epoch=0)
    chosen = [7, 2, 5]
    again = augmented(images, [images.ids[position] for position in chosen], config, seed=0, epoch=0)
    assert torch.equal(again, drawn[chosen])


@pytest.mark.parametrize("crop", ["pad4", "random_resized"])
def test_seed_and_epoch_decide_the_crop(crop: str) -> None:
    images = Pictures([noise(9, 9, 3)] * 20, Fit(9))
    config = AugmentConfig(crop=crop, flip=False)
    first, again, other_epoch, other_seed = (
        augmented(images, images.ids, config, seed, epoch) for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]
    )
    assert torch.equal(first, again)
    for other in (other_epoch, other_seed):
        assert sum(torch.equal(a, b) for a, b in zip(first, other, strict=True)) < 5


def test_nothing_is_changed_unless_it_is_asked_for() -> None:
    images = [noise(8, 8, 3, seed=seed) for seed in range(4)]
    drawn = drawn_of(images, AugmentConfig(crop="none", flip=False), 8)
    assert np.array_equal(drawn.numpy(), np.stack([as_float(image) for image in images]))
