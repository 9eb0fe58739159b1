"""Augmentation: which crops and flips are drawn, how often, and that an image's key alone decides them."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resized_crop

from align_core.align_config import AugmentConfig
from align_core.augmentation import augment
from align_core.randomness import image_keys

EVERY_CONFIG = [
    AugmentConfig(crop=crop, flip=flip) for crop in ("none", "pad4", "random_resized") for flip in (False, True)
]


def keys(count: int) -> Tensor:
    return image_keys(0, [f"{row:05d}" for row in range(count)])


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_pad4_cuts_each_of_the_81_crops_out_of_the_black_margin() -> None:
    image = noise(3, 6, 10)
    padded = np.pad(image.numpy(), [(0, 0), (4, 4), (4, 4)])
    crops = {padded[:, top : top + 6, left : left + 10].tobytes() for top in range(9) for left in range(9)}
    drawn = augment(image.expand(4000, 3, 6, 10), keys(4000), AugmentConfig(crop="pad4", flip=False))
    counts = Counter(crop.numpy().tobytes() for crop in drawn)
    assert counts.keys() == crops
    assert len(crops) == 81
    assert min(counts.values()) > 20 and max(counts.values()) < 85  # 49 of each are expected, with deviation 7


def test_flip_mirrors_half_of_the_images() -> None:
    image = noise(3, 4, 5)
    drawn = augment(image.expand(2000, 3, 4, 5), keys(2000), AugmentConfig(crop="none", flip=True))
    mirrored = sum(np.array_equal(one, image.numpy()[:, :, ::-1]) for one in drawn.numpy())
    kept = sum(torch.equal(one, image) for one in drawn)
    assert mirrored + kept == 2000
    assert 900 < mirrored < 1100


def test_flip_comes_after_the_crop() -> None:
    images = noise(16, 3, 8, 8)
    cropped = augment(images, keys(16), AugmentConfig(crop="pad4", flip=False))
    both = augment(images, keys(16), AugmentConfig(crop="pad4", flip=True))
    mirrored = [torch.equal(one, crop.flip(2)) for one, crop in zip(both, cropped, strict=True)]
    kept = [torch.equal(one, crop) for one, crop in zip(both, cropped, strict=True)]
    assert any(mirrored) and any(kept)
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))


def test_random_resized_is_a_crop_of_8_to_100_percent_and_ratio_three_to_four() -> None:
    side = 64
    row, column = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([row, column, noise(side, side)])  # the first two channels reveal where the crop lies
    drawn = augment(image.expand(400, 3, side, side), keys(400), AugmentConfig(crop="random_resized", flip=False))
    boxes = []
    for one in drawn:
        down, across = (
            round(float(one[0, 33, 32] - one[0, 31, 32]) * 32),
            round(float(one[1, 32, 33] - one[1, 32, 31]) * 32),
        )
        top = round(float(one[0, 31:33, 32].mean()) - down / 2 + 0.5)
        left = round(float(one[1, 32, 31:33].mean()) - across / 2 + 0.5)
        expected = resized_crop(
            image, top, left, down, across, [side, side], InterpolationMode.BILINEAR, antialias=True
        )
        torch.testing.assert_close(one, expected)
        assert 0 <= top <= side - down and 0 <= left <= side - across
        boxes.append((top, left, down, across))
    top, left, down, across = np.array(boxes).T
    area, ratio = down * across / side**2, across / down
    assert area.min() == pytest.approx(0.08, abs=0.02) and area.max() == pytest.approx(1, abs=0.05)
    assert area.mean() == pytest.approx(0.54, abs=0.05)
    assert ratio.min() == pytest.approx(3 / 4, abs=0.05) and ratio.max() == pytest.approx(4 / 3, abs=0.05)
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    roomy = (down < side - 10) & (across < side - 10)
    shares = np.stack([top / (side - down).clip(1), left / (side - across).clip(1)])[:, roomy]
    for share in shares:  # crops lie anywhere in the available space
        assert share.min() == 0 and share.max() == 1
        assert share.mean() == pytest.approx(0.5, abs=0.06)
    assert abs(np.corrcoef(shares)[0, 1]) < 0.2


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=str)
def test_shape_and_range_stay(config: AugmentConfig) -> None:
    images = noise(8, 1, 12, 20)
    drawn = augment(images, keys(8), config)
    assert drawn.shape == images.shape and drawn.dtype == torch.float32
    assert drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=str)
def test_an_image_meets_the_same_whatever_batch_it_is_in(config: AugmentConfig) -> None:
    images = noise(9, 3, 8, 8)
    drawn = augment(images, keys(9), config)
    chosen = torch.tensor([7, 2, 5])
    assert torch.equal(augment(images[chosen], keys(9)[chosen], config), drawn[chosen])


def test_nothing_is_changed_unless_it_is_asked_for() -> None:
    images = noise(4, 3, 8, 8)
    assert torch.equal(augment(images, keys(4), AugmentConfig(crop="none", flip=False)), images)
