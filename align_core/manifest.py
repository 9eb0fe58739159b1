"""What an image set holds, found by one look at every image: ids, labels, content hashes, unreadable images."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from os import cpu_count

import numpy as np
import numpy.typing as npt

from align_core.data import ImageSet, ImageSetConfig, open_image_set, selected
from align_core.decoding import BadImage


@dataclass(frozen=True)
class Manifest:
    """The images of one set that can be used, in the order of their ids, and those that cannot.

    Attributes:
        ids: sorted image ids, N of them.
        labels: int64 [N].
        contents: a hash of each image's pixels.
        unreadable: (id, reason) of the images that are left out.
        shape: (channels, height, width) of every image.
    """

    ids: list[str]
    labels: npt.NDArray[np.int64]
    contents: list[str]
    unreadable: list[tuple[str, str]]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """The set's hash: of ids, labels and pixels, in order."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for image_id, label, content in zip(self.ids, self.labels, self.contents, strict=True):
            digest.update(f"{image_id}\0{label}\0{content}\n".encode())
        return digest.hexdigest()


def inspect_images(
    config: ImageSetConfig, image_size: int, progress: Callable[[int], None] = lambda count: None
) -> Manifest:
    """Reads every selected image once, in parallel threads. Raises InputError for a set that cannot be listed.

    Unreadable images are collected, not raised: whether they stop the run is the caller's setting.
    """
    image_set = open_image_set(config, image_size)
    all_ids, all_labels = image_set.listing()
    positions = selected(config, len(all_ids))
    ids, labels = [all_ids[p] for p in positions], all_labels[positions.start : positions.stop]
    threads = (cpu_count() or 1) if config.kind in ("folder", "parquet") else 1  # of the others, nothing is decoded
    with ThreadPoolExecutor(threads) as pool:
        looks = []
        for count, look in enumerate(pool.map(lambda image_id: _look(image_set, image_id), ids), start=1):
            looks.append(look)
            progress(count)
    readable = [p for p, look in enumerate(looks) if isinstance(look, tuple)]
    contents, shapes = zip(*(looks[p] for p in readable), strict=True) if readable else ((), ())
    return Manifest(
        ids=[ids[p] for p in readable],
        labels=labels[readable],
        contents=list(contents),
        unreadable=[(image_id, look) for image_id, look in zip(ids, looks, strict=True) if isinstance(look, str)],
        shape=shapes[0] if shapes else (0, image_size, image_size),
    )


def _look(image_set: ImageSet, image_id: str) -> tuple[str, tuple[int, ...]] | str:
    """(hash of the pixels, their shape), or why the image is unreadable."""
    try:
        pixels = image_set.read(image_id)
    except BadImage as problem:
        return str(problem)
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest(), pixels.shape
