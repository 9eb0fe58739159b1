"""Decoding: from an encoded picture, or a stored array, to a picture of 8-bit pixels at its own size."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_GREY_MODES = ("1", "L")
_UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class BadImage(Exception):
    """One image is unusable. The message says why; the caller adds the image's id."""


def decode(source: Path | io.BytesIO, *, grey: bool) -> Image.Image:
    """Decodes one picture at its own size.

    Args:
        source: the file, or its content.
        grey: whether the image set is grey. A grey set yields one channel and refuses coloured pictures; in any other
            set, grey pictures become three equal channels.

    Raises BadImage for pictures that cannot be decoded, or are not 8-bit.
    """
    try:
        with Image.open(source) as picture:
            if picture.mode.startswith(("I", "F")):
                raise BadImage(f"its pixels are not 8-bit but {picture.mode}; convert it first")
            if grey and picture.mode not in _GREY_MODES:
                raise BadImage("it is coloured, but the first image of the set is grey; put them into separate sets")
            if picture.mode == "P" and "transparency" in picture.info:
                # Through RGBA, because PIL warns when such a palette is converted to RGB directly.
                return picture.convert("RGBA").convert("RGB")
            return picture.convert("L" if grey else "RGB")
    except _UNDECODABLE as problem:
        raise BadImage(f"cannot be decoded ({problem})") from problem


def picture_of(pixels_HWC: Pixels) -> Image.Image:
    """One image, uint8 [H, W, 1], [H, W, 3] or [H, W], as a picture."""
    is_grey = pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1
    return Image.fromarray(pixels_HWC[:, :, 0] if is_grey else pixels_HWC)


def starts_grey(sources: Iterable[Path | io.BytesIO]) -> bool:
    """Whether the first picture that can be opened is grey, which makes its whole set grey.

    Pictures that cannot be opened are passed over here; `decode` reports them.
    """
    for source in sources:
        try:
            with Image.open(source) as picture:
                return picture.mode in _GREY_MODES
        except _UNDECODABLE:
            continue
    return False
