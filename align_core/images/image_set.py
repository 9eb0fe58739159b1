"""What every kind of image set can do, and what is done with images of any kind."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from align_core.errors import InputError
from align_core.images.decoding import BadImage, Pixels
from align_core.images.fit import Fit

CACHED_BYTES = 512 * 2**20
"""The most memory that one open image set takes for images that it keeps."""


class ImageSet(Protocol):
    """What every kind of image set can do: list its images, and read one by its id.

    Attributes:
        fit: how pictures become pixels.
    """

    fit: Fit

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The ids in sorted order, and the label of each, int64 [N]. No image is decoded.

        Raises InputError where the set is unreadable.
        """
        ...

    def files(self) -> list[Path]:
        """The files of the set. Size and modification time of each tell whether the set has changed."""
        ...

    def read(self, image_id: str) -> Pixels:
        """Decodes one image and fits it: uint8 [C, size, size]. Raises BadImage where that is impossible."""
        ...

    def picture(self, image_id: str) -> Image.Image:
        """Decodes one image at its own size. Raises BadImage where that is impossible."""
        ...

    def encoded(self, image_id: str) -> bytes:
        """What is stored of one image: the bytes of a picture, or an array's shape and pixels.

        Its hash changes with anything that any crop of the image may show. Raises BadImage where there is nothing.
        """
        ...


def read_images(image_set: ImageSet, image_ids: Iterable[str]) -> Pixels:
    """Reads several images as uint8 [B, C, H, W]. Raises InputError, naming the image, where one is unreadable."""
    images = []
    for image_id in image_ids:
        try:
            images.append(image_set.read(image_id))
        except BadImage as problem:
            raise InputError(f"image {image_id}: {problem}") from problem
    return np.stack(images)


def encoded_array(pixels_HWC: Pixels) -> bytes:
    """An image that is stored as an array, as bytes: its shape, then its pixels."""
    return repr(pixels_HWC.shape).encode() + pixels_HWC.tobytes()


def chunked(image_ids: Sequence[str], size: int) -> list[range]:
    """Cuts an image set into chunks of `size` images, the last one of fewer. Returns the positions of each.

    The ids must be sorted: a chunk's content then depends on the image set and `size` alone, never on how many workers
    there are or in which order they work.
    """
    if list(image_ids) != sorted(image_ids):
        raise AssertionError("image ids must be sorted before they are cut into chunks")
    return [range(start, min(start + size, len(image_ids))) for start in range(0, len(image_ids), size)]


def row_ids(count: int) -> list[str]:
    """Row numbers as ids, zero-padded so that they sort like numbers."""
    width = max(5, len(str(count - 1)))
    return [f"{row:0{width}d}" for row in range(count)]
