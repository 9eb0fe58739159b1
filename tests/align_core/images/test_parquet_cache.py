"""Of a Parquet set, the row groups that were read last stay in memory, and no more than the limit allows."""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from align_core.errors import InputError
from align_core.images import ImageSet, ImageSetConfig, open_image_set

GROUP = 4  # images in a row group, 50 kB in all


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    table = pa.table({"image": [noise(seed) for seed in range(4 * GROUP)], "label": [0] * 4 * GROUP})
    pq.write_table(table, tmp_path / "set.parquet", row_group_size=GROUP)
    return tmp_path / "set.parquet"


@pytest.fixture
def image_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """The set, with room for two of its four row groups."""
    image_set = open_image_set(ImageSetConfig(kind="parquet", path=str(file)), 8)
    monkeypatch.setattr(sys.modules[type(image_set).__module__], "CACHED_BYTES", 120_000)
    image_set.listing()
    return image_set


def fitted(encoded: bytes) -> np.ndarray:
    """The picture at the size of the set, uint8 [3, 8, 8], by PIL alone."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def read(image_set: ImageSet, *groups: int) -> None:
    for group in groups:
        image_set.read(f"{group * GROUP + 1:05d}")


@pytest.mark.parametrize(
    ("order", "kept"),
    [((0,), {0}), ((0, 1), {0, 1}), ((0, 1, 2), {1, 2}), ((0, 1, 0, 2), {0, 2}), ((0, 1, 2, 3, 0), {0, 3})],
)
def test_the_groups_read_last_are_read_without_the_file(
    image_set: ImageSet, file: Path, order: tuple[int, ...], kept: set[int]
) -> None:
    read(image_set, *order)
    file.unlink()
    for group in kept:
        read(image_set, group)
    for group in {0, 1, 2, 3} - kept:
        with pytest.raises(InputError, match=r"set\.parquet: cannot be read as Parquet"):
            read(image_set, group)


def test_a_group_larger_than_the_limit_is_read_all_the_same(
    image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[type(image_set).__module__], "CACHED_BYTES", 1)
    for group in (0, 1, 1, 0):
        expected = fitted(noise(group * GROUP + 1))
        assert np.array_equal(image_set.read(f"{group * GROUP + 1:05d}"), expected)
