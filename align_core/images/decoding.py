"""Decoding, resizing and cropping: from an encoded picture to the 8-bit pixels that are attacked and evaluated."""

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


def fit_to_size(picture: Image.Image, size: int) -> Pixels:
    """Resizes the short side to `size` with antialiased bicubic interpolation and crops the centre.

    The long side and the position of the crop are rounded as in torchvision's Resize and CenterCrop, so that images
    are the same as with the usual evaluation transforms. Returns uint8 [C, size, size].
    """
    width, height = picture.size
    short = min(width, height)
    if short != size:
        resized = (int(size * width / short), int(size * height / short))
        picture = picture.resize(resized, Image.Resampling.BICUBIC)  # PIL's resize is antialiased
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def from_array(pixels_HWC: Pixels, size: int) -> Pixels:
    """Fits one image, uint8 [H, W, 1], [H, W, 3] or [H, W], to `size`. Returns uint8 [C, size, size]."""
    if pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1:
        pixels_HWC = pixels_HWC[:, :, 0]
    if pixels_HWC.ndim == 3 and pixels_HWC.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
    return fit_to_size(Image.fromarray(pixels_HWC), size)


def decode(source: Path | io.BytesIO, size: int, *, grey: bool) -> Pixels:
    """Decodes one picture and fits it to `size`.

    Args:
        source: the file, or its content.
        size: side of the result in pixels.
        grey: whether the image set is grey. A grey set yields one channel and refuses coloured pictures; in any other
            set, grey pictures become three equal channels.

    Returns uint8 [C, size, size]. Raises BadImage for pictures that cannot be decoded, or are not 8-bit.
    """
    try:
        with Image.open(source) as picture:
            if picture.mode.startswith(("I", "F")):
                raise BadImage(f"its pixels are not 8-bit but {picture.mode}; convert it first")
            if grey and picture.mode not in _GREY_MODES:
                raise BadImage("it is coloured, but the first image of the set is grey; put them into separate sets")
            if picture.mode == "P" and "transparency" in picture.info:
                # Through RGBA, because PIL warns when such a palette is converted to RGB directly.
                return fit_to_size(picture.convert("RGBA").convert("RGB"), size)
            return fit_to_size(picture.convert("L" if grey else "RGB"), size)
    except _UNDECODABLE as problem:
        raise BadImage(f"cannot be decoded ({problem})") from problem


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
