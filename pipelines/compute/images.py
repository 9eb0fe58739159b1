"""Images in a worker's hands: an image set is opened once per process, and test images are read chunk by chunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from align_core.errors import InputError
from align_core.images import Fit, ImageSet, ImageSetConfig, open_image_set, read_images
from align_core.images.decoding import Pixels
from align_core.images.inspection import content_hash


@lru_cache(maxsize=4)
def opened(config: ImageSetConfig, fit: Fit, channels: int) -> ImageSet:
    """The image set, open; it stays open for further work in this process."""
    return open_image_set(config, fit, channels)


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
        """The clean images of a chunk, uint8 [B, C, H, W].

        Raises InputError for an image that is unreadable, or is not the one that was inspected.
        """
        rows = self.chunks[chunk]
        contents = self.contents[rows.start : rows.stop]
        image_set = opened(self.config, self.fit, self.channels)
        return read_as_inspected("data.test", image_set, self.ids_of(chunk), contents)


def read_as_inspected(key: str, image_set: ImageSet, ids: Sequence[str], contents: Sequence[str]) -> Pixels:
    """Images of the set at this key by their ids, uint8 [B, C, H, W].

    Raises InputError for an image that is unreadable, or whose pixels are not those that `contents` are hashes of.
    """
    images_BCHW = read_images(image_set, ids)
    for image_id, pixels, content in zip(ids, images_BCHW, contents, strict=True):
        if content_hash(pixels.tobytes()) != content:
            raise InputError(
                f"{key}: image {image_id} is not as it was when the image set was inspected. Run again with --rehash, "
                "and leave images and weights as they are while a run is at work"
            )
    return images_BCHW


def adversarial_images(table: pa.Table) -> Pixels:
    """The column `image` of a table of adversarial images, uint8 [B, C, H, W]."""
    return np.asarray(table["image"].combine_chunks().to_numpy_ndarray())
