"""Image sets of every kind: their settings, the selection of images, and chunks. Also the digits of scikit-learn."""

from collections import Counter
from itertools import pairwise
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
from align_core.images.selection import apportioned


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


def drawn(sizes: dict[str, int], size: int, seed: int = 0, **settings: Any) -> list[str]:
    """The ids of a sample of images called `<class>/<number>`, with so many images in each class."""
    ids = sorted(f"{name}/{number:03d}" for name, count in sizes.items() for number in range(count))
    labels = np.array([image_id.partition("/")[0] for image_id in ids])
    config = ImageSetConfig(kind="digits", sample=size, sample_seed=seed, **settings)
    return [ids[position] for position in selected(config, ids, labels)]


class TestSample:
    def test_classes_keep_their_shares(self) -> None:
        counts = Counter(image_id[0] for image_id in drawn({"a": 60, "b": 30, "c": 10}, 20))
        assert counts == {"a": 12, "b": 6, "c": 2}

    def test_it_is_a_matter_of_seed_and_ids_alone(self) -> None:
        first = drawn({"a": 60, "b": 30}, 20)
        assert first == drawn({"a": 60, "b": 30}, 20) == sorted(first)
        assert first != drawn({"a": 60, "b": 30}, 20, seed=1)

    def test_a_larger_sample_holds_a_smaller_one(self) -> None:
        sizes = {"a": 40, "b": 40, "c": 40}
        samples = [set(drawn(sizes, size)) for size in range(1, 121)]
        assert all(smaller < larger for smaller, larger in pairwise(samples))

    def test_images_that_are_added_displace_few(self) -> None:
        kept = set(drawn({"a": 100}, 50)) & set(drawn({"a": 110}, 50))
        assert len(kept) > 40

    def test_it_is_drawn_from_what_take_leaves(self) -> None:
        sample = drawn({"a": 10, "b": 10}, 4, take=(5, 15))
        assert {image_id[0] for image_id in sample} == {"a", "b"}
        assert all("a/005" <= image_id <= "b/004" for image_id in sample)

    def test_more_than_there_are_is_all(self) -> None:
        assert len(drawn({"a": 3, "b": 2}, 9)) == 5

    @pytest.mark.parametrize("size", range(1, 40))
    def test_the_size_is_exact_and_no_class_is_left_out(self, size: int) -> None:
        sizes = {"a": 30, "b": 5, "c": 3, "d": 1, "e": 1}
        sample = drawn(sizes, size)
        assert len(sample) == len(set(sample)) == size
        assert len({image_id[0] for image_id in sample}) == min(size, 5) or size < 5


class TestApportioned:
    @pytest.mark.parametrize(
        ("sizes", "seats", "expected"),
        [
            # By hand: shares 5.4, 3.3, 1.3 of ten seats; the tenth goes to the largest remainder.
            ([54, 33, 13], 10, [6, 3, 1]),
            ([1, 1, 98], 10, [1, 1, 8]),
            ([10, 10, 10], 4, [2, 1, 1]),
            ([5, 3], 8, [5, 3]),
            ([5, 3], 80, [5, 3]),
            ([2, 2, 2, 2], 1, [1, 0, 0, 0]),
            ([1, 1, 1, 1], 4, [1, 1, 1, 1]),
        ],
    )
    def test_by_hand(self, sizes: list[int], seats: int, expected: list[int]) -> None:
        assert apportioned(sizes, seats) == expected

    def test_no_share_is_off_by_a_whole_seat_where_all_have_one(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            sizes = rng.integers(50, 500, rng.integers(1, 20)).tolist()
            seats = int(rng.integers(20 * len(sizes), sum(sizes) + 1)) if 20 * len(sizes) < sum(sizes) else sum(sizes)
            exact = np.array(sizes) * seats / sum(sizes)
            assert np.all(np.abs(np.array(apportioned(sizes, seats)) - exact) < 1)
