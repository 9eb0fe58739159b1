"""Image sets in an .npz file of numpy."""

import struct
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError, reason_of
from align_core.images.decoding import Picture, from_array
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet, encoded_array, row_ids
from align_core.images.labels import Labels, RawLabels, as_indices, as_targeted, written_from_0

_IMAGES = "images.npy"
_PIECE = 2**20  # bytes
_TARGETED, _IDS = "targeted_labels", "ids"


class _Arrays(NamedTuple):
    """What an npz file holds, row by row as it lies there; `targeted` and `ids` are None where there are none."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    targeted: npt.NDArray[Any] | None
    ids: npt.NDArray[Any] | None


class Npz(ImageSet):
    """An npz file with `images`, uint8 [N, H, W, C] or [N, H, W], and `labels` [N], class indices or class names.

    It may have `targeted_labels` [N], too: the class that a targeted attack is to lead each image to; and `ids` [N],
    text. Without them, an id is the zero-padded row. Integers are numbers of classes, of which the first is
    `first_class`.
    """

    def __init__(self, path: Path, fit: Fit, channels: int | None, first_class: int = 0) -> None:
        super().__init__(fit, channels)
        self.path, self.first_class = path, first_class

    @cached_property
    def arrays(self) -> _Arrays:
        """The arrays of the file. Compressed images are all in memory, others stay on the disk until they are read."""
        there: list[str] = []
        try:
            with open(self.path, "rb") as file:
                if not zipfile.is_zipfile(file):  # numpy would advise to unpickle it
                    raise ValueError("it is no zip archive")
                file.seek(0)
                with np.load(file, allow_pickle=False) as archive:
                    there = archive.files
                    mapped = mapped_array(self.path, _IMAGES)
                    images = array_of(archive, "images") if mapped is None else mapped
                    labels = array_of(archive, "labels")
                    targeted, ids = (
                        array_of(archive, own) if own in archive.files else None for own in (_TARGETED, _IDS)
                    )
        except KeyError as problem:
            listed = ", ".join(f"`{name}`" for name in there) or "none"
            raise InputError(
                f"{self.path}: an npz image set needs the arrays `images` and `labels`, and there are: {listed}"
            ) from problem
        except Exception as problem:  # a damaged file can raise almost any exception
            raise InputError(f"{self.path}: {why_unreadable(problem, 'cannot be read as npz')}") from problem
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[3] not in (1, 3))
        ):
            raise InputError(f"{self.path}: `images` must be uint8 NHWC (C 1 or 3), not {images.dtype} {images.shape}")
        for name, values in (("labels", labels), (_TARGETED, targeted)):
            if values is not None and (values.shape != (len(images),) or values.dtype.kind not in "iuU"):
                raise InputError(
                    f"{self.path}: `{name}` must be {len(images)} integers or names, not {values.dtype} {values.shape}"
                )
        if ids is not None and (ids.shape != (len(images),) or ids.dtype.kind != "U"):
            raise InputError(
                f"{self.path}: `{_IDS}` must be {len(images)} texts, one for each image, not {ids.dtype} {ids.shape}; "
                "give this array another name if it is something else"
            )
        return _Arrays(images, labels, targeted, ids)

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row of each image id, in the order of the ids."""
        images, own, rows = self.arrays.images, self.arrays.ids, dict[str, int]()
        for row, image_id in enumerate(row_ids(len(images)) if own is None else own.tolist()):
            if (other := rows.setdefault(image_id, row)) != row:
                raise InputError(
                    f"{self.path}: the id {image_id!r} occurs twice in `{_IDS}`, in rows {other} and {row}"
                )
        return dict(sorted(rows.items()))

    def _in_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of all rows, in the order of the ids."""
        return values if self.arrays.ids is None else values[list(self._rows.values())]

    def listing(self) -> tuple[list[str], Labels]:
        """Sorted ids, and the array `labels`. Raises InputError where the file is unreadable."""
        images, labels, ids = self.arrays.images, self._in_order(self.arrays.labels), list(self._rows)
        if 0 in images.shape[1:]:
            raise InputError(f"{self.path}: its images have no pixels; `images` is of shape {images.shape}")
        if labels.dtype.kind == "U" and "" in labels:
            raise InputError(f"{self.path}: image {ids[int(np.flatnonzero(labels == '')[0])]} has no label")
        return ids, labels if labels.dtype.kind == "U" else as_indices(labels, ids, self.path, self.first_class)

    def labels(self) -> RawLabels:
        """The labels, and the classes that they name."""
        raw = super().labels()
        return RawLabels(raw.values, tuple(np.unique(raw.values).tolist())) if raw.are_names else raw

    def targeted(self) -> RawLabels | None:
        """The array `targeted_labels`, class indices or class names, where the file has it."""
        if self.arrays.targeted is None:
            return None
        values = self._in_order(self.arrays.targeted)
        if values.dtype.kind == "U":
            return RawLabels(written_from_0(values.tolist(), self.first_class))
        return RawLabels(as_targeted(values, list(self._rows), self.path, self.first_class))

    def notes(self) -> list[str]:
        """Whose ids the images have, which also decide their order."""
        return [] if self.arrays.ids is None else [f"its images have the ids in the array `{_IDS}`, and their order"]

    def files(self) -> list[Path]:
        """The one file of the set, which holds both images and labels."""
        return [self.path]

    def decoded(self, image_id: str) -> Picture:
        """One row of the array `images`."""
        return from_array(self.arrays.images[self._row_of(image_id)])

    def encoded(self, image_id: str) -> bytes:
        """Shape and pixels of one row of the array `images`."""
        return encoded_array(self.arrays.images[self._row_of(image_id)])

    def check(self) -> None:
        """Raises InputError where the images are not those of their checksum."""
        check_mapped(self.path)

    def _row_of(self, image_id: str) -> int:
        if image_id not in self._rows:  # the file was written anew since its ids were asked for
            raise IndexError(f"{self.path} holds {len(self._rows)} images, and none with this id")
        return self._rows[image_id]


def array_of(archive: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """An array of an open .npz file. Raises ValueError where it holds Python objects, which are never unpickled."""
    try:
        return archive[name]
    except ValueError as problem:
        if "allow_pickle" not in str(problem):
            raise
        kind = "uint8" if name == "images" else "text" if name == _IDS else "integers or text"
        raise ValueError(f"`{name}` holds Python objects, and nothing is unpickled; save it as {kind}") from problem


def check_mapped(path: Path) -> None:
    """Raises InputError where the images within an .npz file, which are mapped, are not those of their checksum.

    It reads them all once, at 1 GB/s or so. Arrays that cannot be mapped are compared when they are read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_IMAGES).compress_type != zipfile.ZIP_STORED:
                return
            with archive.open(_IMAGES) as stream:
                while stream.read(_PIECE):
                    pass
    except zipfile.BadZipFile as problem:
        raise InputError(f"{path}: {why_unreadable(problem, 'cannot be read as npz')}") from problem


def why_unreadable(problem: Exception, otherwise: str) -> str:
    """What to say of an exception on reading an .npz or .npy file, of which numpy's own words do not always tell."""
    if isinstance(problem, zipfile.BadZipFile) and "CRC-32" in str(problem):
        return "its content is damaged (CRC-32): fetch it again"
    if "Python objects in dtype" in str(problem):  # as numpy says of an .npy file
        return f"{otherwise} (it holds Python objects, and nothing is unpickled; save it as uint8)"
    return f"{otherwise} ({reason_of(problem)})"


def mapped_array(path: Path, member: str) -> npt.NDArray[Any] | None:
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
