"""Decoding: from an encoded picture, or a stored array, to a picture of 8-bit pixels at its own size."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from align_core.errors import reason_of
from align_core.images.files import check_regular

Pixels = npt.NDArray[np.uint8]
IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "PPM", "BMP", "DIB", "GIF", "JPEG2000")
"""The formats, by PIL's names, that a file is decoded as, whatever its name. For some others PIL starts programs."""
Fact = Literal["alpha", "frames", "orientation", "enlarged", "reduced"]
"""What is done to a picture that its pixels do not show; it is counted, and said on every run."""

MOST_ELONGATED = 100
"""The most times that one side of a picture may be as long as the other: the short side is what is resized."""
MOST_PIXELS = 2 * 89_478_485
"""The most pixels of a picture, as stored or resized; PIL refuses more when it decodes a file."""
_GREY_MODES = ("1", "L", "LA", "La")
_ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
_ORIENTATION = 0x0112  # the tag of EXIF


class BadImage(Exception):
    """One image is unusable. The message says why; the caller adds the image's id."""


@dataclass(frozen=True)
class Header:
    """What can be known of one picture without decoding it.

    Attributes:
        width, height: in pixels.
        is_grey: whether it has one channel.
        facts: what is done to it when it is decoded.
    """

    width: int
    height: int
    is_grey: bool
    facts: frozenset[Fact] = frozenset()


@dataclass(frozen=True)
class Picture:
    """One picture of 8-bit pixels at its own size.

    Attributes:
        image: of PIL's mode L where the picture is grey, or else RGB.
        facts: what was done to it.
    """

    image: Image.Image
    facts: frozenset[Fact] = frozenset()

    @property
    def is_grey(self) -> bool:
        """Whether it has one channel."""
        return self.image.mode == "L"

    @property
    def header(self) -> Header:
        """What is known of it beside its pixels."""
        return Header(*self.image.size, self.is_grey, self.facts)

    def in_channels(self, channels: int | None) -> Image.Image:
        """The picture with one channel (grey), with three, or with those that it has."""
        return self.image if channels is None else self.image.convert("L" if channels == 1 else "RGB")


def decode(source: Path | io.BytesIO) -> Picture:
    """Decodes one picture: a file, or its content.

    A channel for transparency is dropped, of several frames the first is used, and an orientation in EXIF is ignored,
    as torchvision does. Raises BadImage for what is no regular file, cannot be decoded, is not 8-bit, or is too large.
    """
    with _opened(source) as (picture, header):
        if picture.mode == "P" and "transparency" in picture.info:
            # Through RGBA, because PIL warns when such a palette is converted to RGB directly.
            return Picture(picture.convert("RGBA").convert("RGB"), header.facts)
        return Picture(picture.convert("L" if header.is_grey else "RGB"), header.facts)


def header_of(content: bytes) -> Header:
    """Reads the header of a picture from the content of its file, and decodes none of it.

    Raises BadImage as `decode` does, but for what is damaged behind the header.
    """
    with _opened(io.BytesIO(content)) as (_, header):
        return header


@contextmanager
def _opened(source: Path | io.BytesIO) -> Iterator[tuple[Image.Image, Header]]:
    """A picture that is still encoded, and its header. Raises BadImage, also for what goes wrong in the block."""
    try:
        if isinstance(source, Path):
            check_regular(source)
        with Image.open(source, formats=FORMATS) as picture:
            check_size(*picture.size)
            if picture.mode.startswith(("I", "F")) or _is_deep(picture):
                kind = picture.mode if picture.mode.startswith(("I", "F")) else f"{picture.mode} of 16 bits"
                raise BadImage(f"its pixels are not 8-bit but {kind}; convert it first")
            yield picture, Header(*picture.size, picture.mode in _GREY_MODES, _facts(picture))
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as problem:  # its message has the address of what is no file
        raise BadImage("cannot be decoded (cannot identify its format)") from problem
    except Exception as problem:  # a damaged picture can make PIL raise almost any exception
        raise BadImage(f"cannot be decoded ({reason_of(problem)})") from problem


def from_array(pixels_HWC: Pixels) -> Picture:
    """An array, as `picture_of` takes it, as a picture. Raises BadImage for one of no, or of too many, pixels."""
    check_size(pixels_HWC.shape[1], pixels_HWC.shape[0])
    return Picture(picture_of(pixels_HWC))


def picture_of(pixels_HWC: Pixels) -> Image.Image:
    """One image, uint8 [H, W, 1], [H, W, 3] or [H, W], as a picture."""
    is_grey = pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1
    return Image.fromarray(pixels_HWC[:, :, 0] if is_grey else pixels_HWC)


def check_size(width: int, height: int) -> None:
    """Raises BadImage for a picture of no pixels, of too many, or too elongated for its short side to be resized."""
    short, long = sorted((width, height))
    if short < 1:
        raise BadImage(f"it has no pixels ({width} x {height})")
    if long > MOST_ELONGATED * short:
        raise BadImage(
            f"it is {width} x {height} pixels; one side may be at most {MOST_ELONGATED} times as long as the other"
        )
    if width * height > MOST_PIXELS:
        raise BadImage(f"it is {width} x {height} pixels, and may have at most {MOST_PIXELS:,}")


def _is_deep(picture: Image.Image) -> bool:
    """Whether the file has more than 8 bits per channel, of which PIL keeps the upper ones without a word.

    Of PNG and TIFF the raw mode says so (`RGB;16B`), of PPM the largest value.
    """
    for tile in getattr(picture, "tile", ()):
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(part, str) and ";16" in part for part in args):
            return True
        if picture.format == "PPM" and any(isinstance(part, int) and part > 255 for part in args):
            return True
    return False


def _facts(picture: Image.Image) -> frozenset[Fact]:
    facts: set[Fact] = set()
    if picture.mode in _ALPHA_MODES or "transparency" in picture.info:
        facts.add("alpha")
    # A picture whose further frames or EXIF data are damaged is as good as one that has none: neither is used.
    with suppress(Exception):
        # A photo of several frames (MPO) holds one picture and its previews.
        if getattr(picture, "is_animated", False) and picture.format != "MPO":
            facts.add("frames")
    with suppress(Exception):
        if "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) != 1:
            facts.add("orientation")
    return frozenset(facts)
