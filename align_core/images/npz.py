"""Image sets in an .npz file of numpy."""

import struct
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from align_core.errors import InputError
from align_core.images.decoding import Pixels, picture_of
from align_core.images.fit import Fit
from align_core.images.image_set import encoded_array, row_ids


class Npz:
    """An npz file with `images`, uint8 [N, H, W, C] or [N, H, W], and `labels` [N]. An id is the zero-padded row."""

    def __init__(self, path: Path, fit: Fit) -> None:
        self.path, self.fit = path, fit

    @cached_property
    def arrays(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The images and their labels. Compressed images are all in memory, others stay on the disk until read."""
        try:
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                mapped = _mapped(self.path, "images.npy")
                images, labels = archive["images"] if mapped is None else mapped, archive["labels"]
        except KeyError as problem:
            raise InputError(f"{self.path}: an npz image set needs the arrays `images` and `labels`") from problem
        except Exception as problem:  # a damaged file can raise almost any exception
            raise InputError(f"{self.path}: cannot be read as npz ({problem})") from problem
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[3] not in (1, 3))
        ):
            raise InputError(f"{self.path}: `images` must be uint8 NHWC (C 1 or 3), not {images.dtype} {images.shape}")
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{self.path}: `labels` must be {len(images)} integers, not {labels.dtype} {labels.shape}")
        return images, labels

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Row numbers, and the array `labels`. Raises InputError where the file is unreadable."""
        return row_ids(len(self.arrays[0])), self.arrays[1].astype(np.int64)

    def files(self) -> list[Path]:
        """The .npz file."""
        return [self.path]

    def read(self, image_id: str) -> Pixels:
        """One row of the array `images`, as uint8 [C, size, size]."""
        return self.fit.apply_to_array(self.arrays[0][int(image_id)])

    def picture(self, image_id: str) -> Image.Image:
        """One row of the array `images` at its own size."""
        return picture_of(self.arrays[0][int(image_id)])

    def encoded(self, image_id: str) -> bytes:
        """Shape and pixels of one row of the array `images`."""
        return encoded_array(self.arrays[0][int(image_id)])


def _mapped(path: Path, member: str) -> npt.NDArray[Any] | None:
    """Maps an array within an .npz file into memory, so that its images stay on the disk until they are read.

    numpy itself maps .npy files only. Returns None where the array is compressed, empty or of Python objects, and can
    therefore not be mapped. Raises KeyError where the file has no such member.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with open(path, "rb") as file:
        # A member begins with a local header: 30 bytes, its name and an extra field. Bytes 26 to 29 hold the lengths of
        # the last two.
        file.seek(info.header_offset + 26)
        name, more = struct.unpack("<HH", file.read(4))
        file.seek(info.header_offset + 30 + name + more)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        if dtype.hasobject or 0 in shape:  # objects would have to be unpickled, and an empty array cannot be mapped
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if is_fortran else "C")
