"""Structural similarity against an independent implementation with scipy, and against cases computed by hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from align_core.errors import InputError
from align_core.similarity import structural_similarity


def reference(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM of two arrays [C, H, W] of 8-bit levels, written from the paper: mean over windows inside, and channels."""
    side = min(11, *one.shape[1:])
    side -= 1 - side % 2
    half = side // 2
    kernel = np.exp(-((np.arange(side) - half) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()

    def smooth(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = correlate1d(values, kernel, axis=axis, mode="constant")
        return values[half : values.shape[0] - half, half : values.shape[1] - half]

    found = []
    for x, y in zip(one.astype(float), other.astype(float), strict=True):
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        mx, my = smooth(x), smooth(y)
        vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
        found.append(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16), (3, 11, 17), (1, 8, 8), (3, 4, 9), (1, 1, 1)])
def test_it_is_that_of_an_independent_implementation(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (20, *shape), dtype=np.uint8)
    noise = rng.integers(-16, 17, (20, *shape)) * np.arange(20)[:, None, None, None]
    other = (clean + noise).clip(0, 255).astype(np.uint8)
    found = structural_similarity(torch.from_numpy(clean), torch.from_numpy(other))
    assert found.dtype == torch.float32
    expected = [reference(one, two) for one, two in zip(clean, other, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert found[0] == 1


def test_flat_images_differ_in_luminance_alone() -> None:
    one, other = (torch.full((1, 3, 12, 12), value, dtype=torch.uint8) for value in (51, 204))
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert structural_similarity(one, other).item() == pytest.approx(expected, abs=1e-6)


def test_an_image_counts_by_itself_and_in_either_order() -> None:
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8))
    others = images.flip(3)
    together = structural_similarity(images, others)
    torch.testing.assert_close(together, structural_similarity(others, images))
    assert torch.equal(together[17:18], structural_similarity(images[17:18], others[17:18]))


def test_other_batches_are_refused() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match="cannot be compared image by image"):
        structural_similarity(images, images[:1])
    with pytest.raises(InputError, match="the other images must be uint8"):
        structural_similarity(images, images.float())
