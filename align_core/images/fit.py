"""From a picture of any size to the square of 8-bit pixels that is attacked and evaluated."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from align_core.images.decoding import Pixels

Interpolation = Literal["bicubic", "bilinear"]
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Fit:
    """Resizes the short side of a picture and crops the centre, as the field's evaluation transforms do.

    The long side is rounded down, and the corner of the crop as Python rounds, halves to even: as in torchvision's
    Resize and CenterCrop. timm's `create_transform` uses these two classes, so one rule reproduces both libraries bit
    for bit. Raises ValueError where the crop would be larger than the picture.

    Args:
        size: side of the crop in pixels.
        resize: length to which the short side is resized; by default `size`, which keeps as much as a square can.
        interpolation: PIL's filter. Both are antialiased.
    """

    size: int
    resize: int | None = None
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if self.short_side < self.size:
            raise ValueError(
                f"resize {self.resize} is below image_size {self.size}: the centre crop would exceed the picture"
            )

    @property
    def short_side(self) -> int:
        """The length of the short side after resizing."""
        return self.size if self.resize is None else self.resize

    @property
    def share(self) -> float:
        """The share of the resized short side that the crop keeps, which libraries publish as `crop_pct`."""
        return self.size / self.short_side

    def apply(self, picture: Image.Image) -> Pixels:
        """The square out of a picture of one or three 8-bit channels: uint8 [C, size, size]."""
        width, height = picture.size
        if width == height == self.size == self.short_side:
            return as_pixels(picture)
        short = min(width, height)
        if short != self.short_side:
            resized = (int(self.short_side * width / short), int(self.short_side * height / short))
            picture = picture.resize(resized, _FILTERS[self.interpolation])
        left, top = round((picture.width - self.size) / 2), round((picture.height - self.size) / 2)
        return as_pixels(picture.crop((left, top, left + self.size, top + self.size)))

    def apply_to_box(self, picture: Image.Image, box: tuple[int, int, int, int]) -> Pixels:
        """The box (left, top, right, bottom) of a picture, resized to the square: uint8 [C, size, size]."""
        return as_pixels(picture.crop(box).resize((self.size, self.size), _FILTERS[self.interpolation]))


def as_pixels(picture: Image.Image) -> Pixels:
    """A picture of one or three 8-bit channels as uint8 [C, H, W]."""
    pixels = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
