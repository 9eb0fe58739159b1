"""Images in a worker's hands: an image set is opened once per process, and test images are read chunk by chunk."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np
import pyarrow as pa

from align_core.errors import InputError, reason_of
from align_core.images import Fit, ImageSet, ImageSetConfig, open_image_set, read_images
from align_core.images.decoding import BadImage, Picture, Pixels
from align_core.images.inspection import content_hash
from pipelines.compute.around import Around
from pipelines.compute.decoded import DECODED
from pipelines.compute.on_node import images_on_node, same_everywhere
from pipelines.failure import InputChangedError


@lru_cache(maxsize=4)
def opened(config: ImageSetConfig, fit: Fit, channels: int | None) -> ImageSet:
    """The image set, open; it stays open for further work in this process."""
    return open_image_set(images_on_node(config), fit, channels)


@dataclass(frozen=True)
class TestImages:
    """The test images, cut into chunks: what crafting and evaluation work on.

    Args:
        config, fit, channels: where the clean images are, how they are resized and cropped, and the channels that they
            get.
        image_ids, labels: of all of them, in order.
        chunks: positions of the images of each chunk.
        contents: a hash of each image's pixels when the set was inspected; images that are others now are refused.
    """

    config: ImageSetConfig
    fit: Fit
    channels: int
    image_ids: list[str]
    labels: list[int]
    chunks: list[range]
    contents: list[str]

    def ids_of(self, chunk: int) -> list[str]:
        """The image ids of a chunk, in order."""
        return self.image_ids[self.chunks[chunk].start : self.chunks[chunk].stop]

    def labels_of(self, chunk: int) -> list[int]:
        """The labels of the images of a chunk, in the same order."""
        return self.labels[self.chunks[chunk].start : self.chunks[chunk].stop]

    def read(self, chunk: int) -> Pixels:
        """The clean images of a chunk, uint8 [B, C, H, W], for reading alone. Raises InputChangedError."""
        rows = self.chunks[chunk]
        contents = self.contents[rows.start : rows.stop]

        def read() -> Pixels:
            image_set = opened(self.config, self.fit, self.channels)
            return read_as_inspected("data.test", image_set, self.ids_of(chunk), contents)

        return DECODED.read(contents, read)


class AsInspected(Around):
    """An image set that hands out no other images than those that were inspected.

    Every image is compared as it is read, so that it does not matter when, how or how often a file is exchanged. A hash
    takes far less time than what is done with the image: 4 us for one of 32 pixels, 0.2 ms for one of 224.

    Args:
        key: of the set in the experiment file.
        image_set: the set.
        contents: a hash of the fitted pixels, by image id: what `read` returns. None for a set that was inspected by
            its stored bytes, of which `read` compares these.
        originals: a hash of what is stored, by image id: what `picture` and `decoded` return crops of.

    These three raise InputChangedError for an image that is another now, or cannot be read.
    """

    def __init__(
        self,
        key: str,
        image_set: ImageSet,
        contents: Mapping[str, str] | None,
        originals: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(image_set)
        self._key, self._contents, self._originals = key, contents, originals or {}

    def decoded(self, image_id: str) -> Picture:
        """One image at its own size."""
        try:
            picture, is_as_it_was = self.inner.decoded(image_id), self._is_stored_as_it_was(image_id)
        except (BadImage, InputError, LookupError) as problem:
            self._refuse_unreadable(image_id, problem)
        if not is_as_it_was:
            self._refuse(image_id)
        return picture

    def read(self, image_id: str) -> Pixels:
        """One image, fitted: uint8 [C, size, size]."""
        if self._contents is None:
            return super().read(image_id)  # out of what `decoded` has compared
        try:
            pixels = self.inner.read(image_id)
        except (BadImage, InputError, LookupError) as problem:  # there may be fewer rows than before
            self._refuse_unreadable(image_id, problem)
        if content_hash(pixels.tobytes()) != self._contents[image_id]:
            self._refuse(image_id)
        return pixels

    def _is_stored_as_it_was(self, image_id: str) -> bool:
        return content_hash(self.inner.encoded(image_id)) == self._originals[image_id]

    def _refuse_unreadable(self, image_id: str, problem: Exception) -> NoReturn:
        is_as_it_was = False
        with suppress(BadImage, InputError, LookupError):
            is_as_it_was = self._contents is None and self._is_stored_as_it_was(image_id)
        if is_as_it_was:
            raise InputChangedError(_DAMAGED.format(self._key, image_id, reason_of(problem))) from problem
        self._refuse(image_id, problem)

    def _refuse(self, image_id: str, problem: Exception | None = None) -> NoReturn:
        opened.cache_clear()  # what this process has in memory may be older than what was inspected
        how = "is not as it was" if problem is None else f"cannot be read ({reason_of(problem)}), as it could be"
        raise InputChangedError(
            f"{self._key}: image {image_id} {how} when the image set was inspected. Run again with --rehash "
            "(in Python, rehash=True), and leave images and weights as they are while a run is at work. "
            f"{same_everywhere()}"
        ) from problem


_DAMAGED = (
    "{0}: image {1} cannot be read ({2}), which {0}.inspect: bytes leaves to be found now. Repair it, or take it out "
    "of the set; with `pixels` every such image is found before a run"
)


def read_as_inspected(
    key: str, image_set: ImageSet, ids: Sequence[str], contents: Sequence[str], is_by_bytes: bool = False
) -> Pixels:
    """Images of the set at this key by their ids, uint8 [B, C, H, W].

    Raises InputChangedError for an image whose pixels are not those that `contents` are hashes of; where these are of
    stored bytes, for an image whose bytes are others.
    """
    known = dict(zip(ids, contents, strict=True))
    return read_images(AsInspected(key, image_set, None if is_by_bytes else known, known), ids)


def adversarial_images(table: pa.Table) -> Pixels:
    """The column `image` of a table of adversarial images, uint8 [B, C, H, W]."""
    return np.asarray(table["image"].combine_chunks().to_numpy_ndarray())
