"""Writes small image sets of every kind for tests, and reads them back."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from align_core.images import Fit, ImageSetConfig, open_image_set
from align_core.images.decoding import Pixels
from align_core.images.inspection import inspect_images
from align_core.images.manifest import Manifest, manifests_of


class Pictures:
    """An image set in memory, of arrays uint8 [H, W, 3] or [H, W] of any sizes. An id is the position."""

    def __init__(self, pictures: Sequence[Pixels], fit: Fit) -> None:
        self.pictures, self.fit = pictures, fit
        self.ids = [f"{position:05d}" for position in range(len(pictures))]

    def listing(self) -> tuple[list[str], Any]:
        return self.ids, np.arange(len(self.ids))

    def files(self) -> list[Path]:
        return []

    def read(self, image_id: str) -> Pixels:
        return self.fit.apply(self.picture(image_id))

    def picture(self, image_id: str) -> Image.Image:
        return Image.fromarray(self.pictures[int(image_id)])

    def encoded(self, image_id: str) -> bytes:
        return self.pictures[int(image_id)].tobytes()


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: Pixels | Image.Image, **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def npz(path: Path, images: Any, labels: Any) -> ImageSetConfig:
    np.savez(path, images=images, labels=labels)
    return ImageSetConfig(kind="npz", path=str(path))


def parquet(path: Path, **columns: Any) -> ImageSetConfig:
    pq.write_table(pa.table(columns), path)
    return ImageSetConfig(kind="parquet", path=str(path))


def listed(config: ImageSetConfig, size: int = 8) -> tuple[list[str], list[Any]]:
    """Ids and labels; these are integers, or class names."""
    ids, labels = open_image_set(config, size).listing()
    assert labels.dtype == np.int64 or labels.dtype.kind == "U"
    return ids, labels.tolist()


def manifest_of(config: ImageSetConfig, classes: int = 2, channels: int | None = None, size: int = 8) -> Manifest:
    """The manifest of an image set that is alone in its experiment."""
    found = inspect_images(config, size, channels)
    return manifests_of({"test": found}, size, classes, channels=channels)["test"]


def read_only_image(config: ImageSetConfig, size: int = 8) -> Pixels:
    image_set = open_image_set(config, size)
    (image_id,) = image_set.listing()[0]
    return image_set.read(image_id)
