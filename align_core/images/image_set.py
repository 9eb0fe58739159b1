"""What every kind of image set can do, and what is done with images of any kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from align_core.errors import InputError
from align_core.images.decoding import MOST_PIXELS, BadImage, Header, Picture, Pixels
from align_core.images.fit import Fit
from align_core.images.labels import Labels, LeftOut, RawLabels

CACHED_BYTES = 512 * 2**20
"""The most memory that one open image set takes for images that it keeps."""


class ImageSet(ABC):
    """What every kind of image set can do: list its images, and read one by its id.

    Args:
        fit: how a picture becomes a square of pixels.
        channels: of every image that is read: 1, 3, or None for those that it has itself.
    """

    def __init__(self, fit: Fit, channels: int | None) -> None:
        self.fit, self.channels = fit, channels

    @abstractmethod
    def listing(self) -> tuple[list[str], Labels]:
        """The ids in sorted order, and the label of each: int64 [N], or class names. No image is decoded.

        Raises InputError where the set is unreadable.
        """

    @abstractmethod
    def files(self) -> list[Path]:
        """The files of the set. Size and modification time of each tell whether the set has changed."""

    def file_of(self, image_id: str) -> Path:
        """The file, one of `files`, that holds the image, where the set is in files."""
        (file,) = self.files()
        return file

    @abstractmethod
    def decoded(self, image_id: str) -> Picture:
        """Decodes one image at its own size and in its own channels. Raises BadImage where that is impossible."""

    @abstractmethod
    def encoded(self, image_id: str) -> bytes:
        """What is stored of one image: the bytes of a picture, or an array's shape and pixels.

        Its hash changes with anything that any crop of the image may show. Raises BadImage where there is nothing.
        """

    def undecoded(self, image_id: str) -> tuple[bytes, Header]:
        """What is stored of one image, as `encoded` has it, and its header. Raises BadImage where this is unusable.

        Nothing is decoded here, so that damage behind the header is not found.
        """
        return self.encoded(image_id), self.decoded(image_id).header  # of an array; kinds of encoded pictures differ

    def check(self) -> None:  # noqa: B027 (not abstract: most kinds read all that can be checked)
        """Raises InputError for damage to the files that reading images would not show. It may read all of them."""

    def labels(self) -> RawLabels:
        """The labels of the listing, with what the set says about its classes."""
        return RawLabels(self.listing()[1])

    def targeted(self) -> RawLabels | None:
        """The class that each image of the listing is to be led to, where the set lists any."""
        return None

    def left_out(self) -> LeftOut:
        """What the listing leaves out."""
        return LeftOut()

    def notes(self) -> list[str]:
        """How the set was read where that is not evident, a sentence each."""
        return []

    def picture(self, image_id: str) -> Image.Image:
        """Decodes one image at its own size, with the channels of the set. Raises BadImage where that is impossible."""
        return self.decoded(image_id).in_channels(self.channels)

    def read(self, image_id: str) -> Pixels:
        """Decodes one image and fits it: uint8 [C, size, size]. Raises BadImage where that is impossible."""
        return self.fitted(self.picture(image_id))

    def fitted(self, picture: Image.Image) -> Pixels:
        """A picture as uint8 [C, size, size]. Raises BadImage where that takes too much memory."""
        self.check_fits(*picture.size)
        return self.fit.apply(picture)

    def check_fits(self, width: int, height: int) -> None:
        """Raises BadImage for a picture of this size where fitting it takes too much memory."""
        if self.fit.short_side**2 * max(width, height) > MOST_PIXELS * min(width, height):
            raise BadImage(
                f"it is {width} x {height} pixels, and would have more than {MOST_PIXELS:,} after its short side is "
                f"resized to {self.fit.short_side}"
            )


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
