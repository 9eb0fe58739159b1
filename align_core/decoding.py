"""From a picture to the 8-bit pixels that everything else starts from: decoded, resized, cropped."""

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
    """One image cannot be used; the message says why, the caller knows which."""


def fit_to_size(picture: Image.Image, size: int) -> Pixels:
    """The short side resized to `size` (antialiased bicubic), centre crop, 8 bits: uint8 [C, size, size].

    The long side and the corner are rounded as torchvision's Resize and CenterCrop round them.
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
    """An array of one image, uint8 [H, W, 1 or 3] or [H, W], at `size`."""
    if pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1:
        pixels_HWC = pixels_HWC[:, :, 0]
    if pixels_HWC.ndim == 3 and pixels_HWC.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
    return fit_to_size(Image.fromarray(pixels_HWC), size)


def decode(source: Path | io.BytesIO, size: int, *, grey: bool) -> Pixels:
    """The picture in a file, or in bytes, at `size`; of one channel where the set is grey. Raises BadImage."""
    try:
        with Image.open(source) as picture:
            if picture.mode.startswith(("I", "F")):
                raise BadImage(f"its pixels are not 8-bit but {picture.mode}: convert it first")
            if grey and picture.mode not in _GREY_MODES:
                raise BadImage("it has colours, but the first image of the set is grey: keep the two apart")
            if picture.mode == "P" and "transparency" in picture.info:
                return fit_to_size(picture.convert("RGBA").convert("RGB"), size)  # PIL warns about the direct way
            return fit_to_size(picture.convert("L" if grey else "RGB"), size)
    except _UNDECODABLE as problem:
        raise BadImage(f"cannot be decoded ({problem})") from problem


def starts_grey(sources: Iterable[Path | io.BytesIO]) -> bool:
    """Whether the first image that can be opened is grey; the ones before it are named when they are read."""
    for source in sources:
        try:
            with Image.open(source) as picture:
                return picture.mode in _GREY_MODES
        except _UNDECODABLE:
            continue
    return False
