"""Decoded images, kept on a node's own disk, so that a picture is decoded and resized once and not in every epoch."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from align_core.errors import InputError, reason_of
from align_core.images import Fit
from align_core.images.decoding import Pixels
from pipelines.compute.around import Around
from pipelines.compute.images import AsInspected

_HASH = 16  # bytes
Result = TypeVar("Result")


class KeptImages(Around):
    """An image set whose fitted images are read from one file of pixels, as far as they are there.

    The file has a place for every image: a hash, and the pixels. What does not match its hash, as a place that nothing
    has been written to, is decoded, and written there. Any number of processes may use the file at once.

    Args:
        image_set: the set, which hands out no other images than those that were inspected, so that no others are kept.
            Its original pictures, of which `random_resized` shows crops, are decoded every time.
        folder: in which the file lies. Its name depends on the images and their size, so that sets do not mix.
        contents: a hash of each image of the set, by its id.
        channels: of every image.
        are_pixels: whether `contents` are of the fitted pixels, so that these are compared with them; else they are of
            what is stored.
    """

    def __init__(
        self,
        image_set: AsInspected,
        folder: Path,
        contents: Mapping[str, str],
        channels: int,
        are_pixels: bool = True,
    ) -> None:
        super().__init__(image_set)
        self._contents, self._are_pixels = contents, are_pixels
        self._shape = channels, self.fit.size, self.fit.size
        self._bytes = channels * self.fit.size**2
        self._places = {image_id: place for place, image_id in enumerate(contents)}
        self._file = folder / f"{_name(self.fit, channels, list(contents.values()))}.pixels"

    def read(self, image_id: str) -> Pixels:
        """One image, fitted: uint8 [C, size, size]. Raises InputError where the disk cannot hold it."""
        place = self._places[image_id] * (_HASH + self._bytes)
        kept = self._try(lambda file: os.pread(file, _HASH + self._bytes, place))
        if self._is_image(image_id, kept[:_HASH], kept[_HASH:]):
            return np.frombuffer(kept, np.uint8, offset=_HASH).reshape(self._shape)
        pixels = self.inner.read(image_id)
        content = pixels.tobytes()
        self._try(lambda file: _write(file, _hash(content) + content, place))
        return pixels

    def _is_image(self, image_id: str, digest: bytes, pixels: bytes) -> bool:
        is_whole = len(pixels) == self._bytes and digest == _hash(pixels)
        return is_whole and (not self._are_pixels or digest.hex() == self._contents[image_id])

    def _try(self, use: Callable[[int], Result]) -> Result:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                return use(descriptor)
            finally:
                os.close(descriptor)
        except OSError as problem:
            whole = (_HASH + self._bytes) * len(self._places)
            raise InputError(
                f"compute.cache: {self._file}: {reason_of(problem)}. It grows to {whole / 1e9:.3g} GB: make room, name "
                "another folder, or leave the key out"
            ) from problem


def _write(descriptor: int, content: bytes, place: int) -> None:
    """Writes all of it, though the system may write less at once."""
    while content:
        written = os.pwrite(descriptor, content, place)
        content, place = content[written:], place + written


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_HASH).digest()


def _name(fit: Fit, channels: int, contents: Sequence[str]) -> str:
    settings = repr((fit.size, fit.resize, fit.interpolation, channels))
    return hashlib.blake2b("\n".join([settings, *contents]).encode(), digest_size=_HASH).hexdigest()
