"""Image sets of every kind: their settings, the selection of images, and chunks. Also the digits of scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sets import listed, noise, npz
from PIL import Image
from sklearn.datasets import load_digits

from align_core.errors import InputError
from align_core.images import ImageSetConfig, chunked, open_image_set, read_images, selected
from align_core.images.image_set import row_ids


class TestDigits:
    config = ImageSetConfig(kind="digits")

    def test_are_scikit_learns(self) -> None:
        digits = load_digits()
        ids, labels = listed(self.config)
        assert len(ids) == 1797 and ids[-1] == "01796"
        assert labels == digits.target.tolist()
        pixels = open_image_set(self.config, 8).read("01000")
        assert pixels.dtype == np.uint8 and pixels.shape == (1, 8, 8)
        assert np.abs(pixels[0] / 255 - digits.images[1000] / 16).max() <= 0.5 / 255

    def test_are_enlarged(self) -> None:
        pixels = open_image_set(self.config, 16).read("00000")
        small = Image.fromarray(open_image_set(self.config, 8).read("00000")[0])
        assert np.array_equal(pixels[0], np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC)))


def test_read_images_keeps_the_order_that_is_asked_for(tmp_path: Path) -> None:
    images = noise(4, 8, 8, 3)
    image_set = open_image_set(npz(tmp_path / "a.npz", images, [0] * 4), 8)
    batch = read_images(image_set, ["00002", "00000"])
    assert np.array_equal(batch, images[[2, 0]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({}, range(10)),
        ({"limit": 3}, range(3)),
        ({"limit": 99}, range(10)),
        ({"take": (4, 8)}, range(4, 8)),
        ({"take": (4, 8), "limit": 2}, range(4, 6)),
        ({"take": (0, 10)}, range(10)),
    ],
)
def test_take_and_limit(settings: dict[str, Any], positions: range) -> None:
    assert selected(ImageSetConfig(kind="digits", **settings), row_ids(10), np.zeros(10)) == list(positions)


@pytest.mark.parametrize(("take", "count"), [((4, 11), 10), (None, 0)])
def test_selecting_what_is_not_there(take: tuple[int, int] | None, count: int) -> None:
    with pytest.raises(InputError):
        selected(ImageSetConfig(kind="digits", take=take), row_ids(count), np.zeros(count))


@pytest.mark.parametrize(
    ("count", "size", "chunks"),
    [(5, 2, [range(0, 2), range(2, 4), range(4, 5)]), (4, 2, [range(0, 2), range(2, 4)]), (1, 9, [range(1)])],
)
def test_chunks(count: int, size: int, chunks: list[range]) -> None:
    assert chunked([f"{row:05d}" for row in range(count)], size) == chunks


def test_chunks_of_unsorted_ids_would_depend_on_the_order() -> None:
    with pytest.raises(AssertionError):
        chunked(["b", "a"], 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "npz"},
        {"kind": "digits", "path": "x"},
        {"kind": "npz", "path": "x", "labels": "y"},
        {"kind": "digits", "take": (5, 5)},
        {"kind": "digits", "take": (-1, 5)},
        {"kind": "digits", "limit": 0},
        {"kind": "digits", "sample": 0},
        {"kind": "digits", "sample": 5, "limit": 5},
        {"kind": "digits", "sample_seed": 1},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"path|labels|take|limit|sample"):
        ImageSetConfig(**settings)


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_a_path_that_does_not_exist(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_image_set(ImageSetConfig(kind=kind, path=str(tmp_path / "nowhere")), 8)
