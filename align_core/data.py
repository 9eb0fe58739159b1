"""Image sets of four kinds (`npz`, `folder`, `parquet`, `digits`), read as 8-bit images.

An image set lists the ids and labels of its images without decoding them, and reads any image by its id. Nothing here
imports torch, so that processes which only decode images start fast.
"""

import csv
import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from align_core.decoding import IMAGE_SUFFIXES, BadImage, Pixels, decode, from_array, starts_grey
from align_core.errors import InputError
from align_core.settings import Settings

_CACHED_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class ImageSetConfig(Settings):
    """Where an image set lies, and which of its images are used.

    Raises ValueError for settings that contradict each other.

    Args:
        kind: `npz` (arrays `images`, uint8 NHWC or NHW, and `labels`), `folder` (a sub-folder per class, or image files
            listed in the CSV file `labels`), `parquet` (columns `image` and `label`, in one file or a folder of files)
            or `digits` (the handwritten digits of scikit-learn).
        path: the file or folder; not given for `digits`.
        labels: for `folder`, a CSV file with the columns `path` (relative to the folder) and `label`.
        take: half-open range of positions, with the images in the order of their ids. The ids of a folder begin with
            the name of the class, so that a range of a folder covers one class after another, not a sample of all.
        limit: number of images to use at most, from the start of the range.
    """

    kind: Literal["npz", "folder", "parquet", "digits"]
    path: str | None = None
    labels: str | None = None
    take: tuple[int, int] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "digits" and self.path is not None:
            raise ValueError("the digits come with scikit-learn: `path` does not apply to them")
        if self.kind != "digits" and self.path is None:
            raise ValueError(f"an image set of kind {self.kind} needs a `path`")
        if self.labels is not None and self.kind != "folder":
            raise ValueError("`labels` applies to kind `folder` only")
        if self.take is not None and not 0 <= self.take[0] < self.take[1]:
            raise ValueError(f"`take` is a half-open range [first, end] with 0 <= first < end, not {list(self.take)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"`limit` must be at least 1, not {self.limit}")


class ImageSet(Protocol):
    """What every kind of image set can do: list its images, and read one by its id."""

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The ids in sorted order, and the label of each, int64 [N]. No image is decoded.

        Raises InputError where the set is unreadable.
        """
        ...

    def files(self) -> list[Path]:
        """The files of the set. Size and modification time of each tell whether the set has changed."""
        ...

    def read(self, image_id: str) -> Pixels:
        """Decodes one image: uint8 [C, H, W] at the set's size. Raises BadImage where that is impossible."""
        ...


def open_image_set(config: ImageSetConfig, image_size: int) -> ImageSet:
    """Opens the image set that `config` describes.

    Its images will be read at `image_size` pixels a side. `take` and `limit` are not applied here; see `selected`.
    Raises InputError where the path does not exist or is not of the right kind.
    """
    if config.kind == "digits":
        return _Digits(image_size)
    path = Path(str(config.path))
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if config.kind == "npz":
        return _Npz(path, image_size)
    if config.kind == "parquet":
        return _Parquet(path, image_size)
    return _Folder(path, Path(config.labels) if config.labels else None, image_size)


def selected(config: ImageSetConfig, count: int) -> range:
    """The positions of the images that `take` and `limit` select out of `count`.

    Raises InputError where `take` exceeds the set, or no image is selected.
    """
    first, end = config.take or (0, count)
    if config.take is not None and end > count:
        raise InputError(f"{config.path or config.kind}: `take` goes to {end}, but there are {count} images")
    positions = range(first, end)
    positions = positions[: config.limit] if config.limit is not None else positions
    if not positions:
        raise InputError(f"{config.path or config.kind}: the image set is empty")
    return positions


def chunked(image_ids: Sequence[str], size: int) -> list[range]:
    """Cuts an image set into chunks of `size` images, the last one of fewer. Returns the positions of each.

    The ids must be sorted: a chunk's content then depends on the image set and `size` alone, never on how many workers
    there are or in which order they work.
    """
    if list(image_ids) != sorted(image_ids):
        raise AssertionError("image ids must be sorted before they are cut into chunks")
    return [range(start, min(start + size, len(image_ids))) for start in range(0, len(image_ids), size)]


def read_images(image_set: ImageSet, image_ids: Iterable[str]) -> Pixels:
    """Reads several images as uint8 [B, C, H, W]. Raises InputError, naming the image, where one is unreadable."""
    images = []
    for image_id in image_ids:
        try:
            images.append(image_set.read(image_id))
        except BadImage as problem:
            raise InputError(f"image {image_id}: {problem}") from problem
    return np.stack(images)


def _row_ids(count: int) -> list[str]:
    """Row numbers as ids, zero-padded so that they sort like numbers."""
    width = max(5, len(str(count - 1)))
    return [f"{row:0{width}d}" for row in range(count)]


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


class _Npz:
    """An npz file with `images`, uint8 [N, H, W, C] or [N, H, W], and `labels` [N]. An id is the zero-padded row."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

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
        return _row_ids(len(self.arrays[0])), self.arrays[1].astype(np.int64)

    def files(self) -> list[Path]:
        return [self.path]

    def read(self, image_id: str) -> Pixels:
        return from_array(self.arrays[0][int(image_id)], self.size)


class _Digits:
    """scikit-learn's 1,797 handwritten digits, grey, 8 x 8 pixels, enlarged to `size`. An id is the zero-padded row."""

    def __init__(self, size: int) -> None:
        # Training reads the same digits again in every epoch.
        self._enlarged = lru_cache(_CACHED_BYTES // size**2)(lambda row: from_array(self.arrays[0][row], size))

    @cached_property
    def arrays(self) -> tuple[Pixels, npt.NDArray[np.int64]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # scikit-learn's pixels run from 0 to 16.
        return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        return _row_ids(len(self.arrays[0])), self.arrays[1]

    def files(self) -> list[Path]:
        return []

    def read(self, image_id: str) -> Pixels:
        return self._enlarged(int(image_id))


class _Folder:
    """A folder of image files. An id is the path relative to the folder.

    The label is the number of the sub-folder, in the order of their names, or is read from a CSV file.
    """

    def __init__(self, root: Path, labels: Path | None, size: int) -> None:
        self.root, self.labels, self.size = root, labels, size
        if not root.is_dir():
            raise InputError(f"{root}: is a file, but an image set of kind folder needs a folder")

    @cached_property
    def _listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        labelled = self._from_csv() if self.labels else self._from_sub_folders()
        labelled.sort()
        return [image_id for image_id, _ in labelled], np.array([label for _, label in labelled], dtype=np.int64)

    def _from_sub_folders(self) -> list[tuple[str, int]]:
        classes = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        return [
            (file.relative_to(self.root).as_posix(), label)
            for label, name in enumerate(classes)
            for file in (self.root / name).rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]

    def _from_csv(self) -> list[tuple[str, int]]:
        assert self.labels is not None
        try:
            with open(self.labels, newline="", encoding="utf-8-sig") as file:
                labelled = [(Path(row["path"]).as_posix(), int(row["label"])) for row in csv.DictReader(file)]
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as problem:
            raise InputError(
                f"{self.labels}: needs the columns `path` and `label` (a number): {problem!r}"
            ) from problem
        if len({image_id for image_id, _ in labelled}) < len(labelled):
            raise InputError(f"{self.labels}: a path is listed twice")
        outside = [path for path, _ in labelled if Path(path).is_absolute() or ".." in Path(path).parts]
        if outside:
            raise InputError(f"{self.labels}: {outside[0]} leads out of {self.root}; paths are relative to it")
        return labelled

    @cached_property
    def _grey(self) -> bool:
        return starts_grey(self.root / image_id for image_id in self._listing[0])

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        return self._listing

    def files(self) -> list[Path]:
        return [*([self.labels] if self.labels else []), *(self.root / image_id for image_id in self._listing[0])]

    def read(self, image_id: str) -> Pixels:
        return decode(self.root / image_id, self.size, grey=self._grey)


class _Parquet:
    """One Parquet file, or a folder of them, with the columns `image` and `label`, and perhaps `image_id`.

    An image is encoded bytes, a struct with the field `bytes` (as Hugging Face's datasets write it), or a fixed-shape
    uint8 tensor [C, H, W]. Without the column `image_id`, an id is the zero-padded row, counted over the sorted files.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self._lock = Lock()  # threads decode at once, but share the row groups that are kept in memory
        self._read: OrderedDict[int, pa.Array] = OrderedDict()

    def files(self) -> list[Path]:
        return sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]

    @cached_property
    def _table(self) -> pa.Table:
        """The labels, and the ids where there are any, of all files: everything but the images."""
        try:
            tables = [pq.ParquetFile(file) for file in self.files()]
            if not tables:
                raise InputError(f"{self.path}: this folder contains no Parquet file")
            names = [{"image", "label", "image_id"} & set(table.schema_arrow.names) for table in tables]
            if not names[0] >= {"image", "label"} or any(others != names[0] for others in names):
                raise InputError(
                    f"{self.path}: a Parquet image set needs the columns `image` and `label` in every file, "
                    "and `image_id` either in every file or in none"
                )
            return pa.concat_tables([table.read(columns=sorted(names[0] - {"image"})) for table in tables])
        except (OSError, pa.ArrowException) as problem:
            raise InputError(f"{self.path}: cannot be read as Parquet ({problem})") from problem

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row of each image id, counted over all files."""
        table = self._table
        ids = table["image_id"].to_pylist() if "image_id" in table.column_names else _row_ids(table.num_rows)
        rows = {str(image_id): row for row, image_id in enumerate(ids)}
        if len(rows) < table.num_rows:
            raise InputError(f"{self.path}: an `image_id` occurs twice")
        return rows

    @cached_property
    def _groups(self) -> list[tuple[Path, int, int]]:
        """Every row group of every file: the file, the group's number in it, and its first row over all files."""
        groups, first = [], 0
        for file in self.files():
            metadata = pq.ParquetFile(file).metadata
            for index in range(metadata.num_row_groups):
                groups.append((file, index, first))
                first += metadata.row_group(index).num_rows
        return groups

    @cached_property
    def _firsts(self) -> npt.NDArray[np.int64]:
        return np.array([first for _, _, first in self._groups], dtype=np.int64)

    def _image(self, row: int) -> Any:
        position = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return self._images_of(position)[row - int(self._firsts[position])]

    def _images_of(self, position: int) -> pa.Array:
        """The images of one row group, still encoded.

        The groups read last stay in memory, up to a limit, because training asks for images in random order and a group
        can only be read whole.
        """
        if position not in self._read:
            file, index, _ = self._groups[position]
            try:
                column = pq.ParquetFile(file).read_row_group(index, columns=["image"])["image"].combine_chunks()
            except (OSError, pa.ArrowException) as problem:
                raise InputError(f"{file}: cannot be read as Parquet ({problem})") from problem
            self._read[position] = column
        self._read.move_to_end(position)
        while len(self._read) > 1 and sum(column.nbytes for column in self._read.values()) > _CACHED_BYTES:
            self._read.popitem(last=False)
        return self._read[position]

    @cached_property
    def _grey(self) -> bool:
        images = (self._encoded(self._image(row)) for row in range(self._table.num_rows))
        return starts_grey(io.BytesIO(encoded) for encoded in images if isinstance(encoded, bytes))

    @staticmethod
    def _encoded(value: Any) -> bytes | None:
        """The encoded picture of a cell; None where the cell is a tensor or empty."""
        plain = value.as_py() if not isinstance(value, pa.ExtensionScalar) else None
        return plain["bytes"] if isinstance(plain, dict) else plain

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        labels = self._table["label"].to_numpy()
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{self.path}: the column `label` must hold integers, not {labels.dtype}")
        ordered = sorted(self._rows.items())
        return [image_id for image_id, _ in ordered], labels[[row for _, row in ordered]].astype(np.int64)

    def read(self, image_id: str) -> Pixels:
        with self._lock:
            value, is_grey = self._image(self._rows[image_id]), self._grey
        if isinstance(value, pa.ExtensionScalar):
            pixels_CHW: npt.NDArray[Any] = value.to_numpy()
            if pixels_CHW.dtype != np.uint8 or pixels_CHW.ndim != 3 or pixels_CHW.shape[0] not in (1, 3):
                raise BadImage(
                    f"a tensor image must be uint8 CHW (C 1 or 3), not {pixels_CHW.dtype} {pixels_CHW.shape}"
                )
            return from_array(pixels_CHW.transpose(1, 2, 0), self.size)
        encoded = self._encoded(value)
        if not isinstance(encoded, bytes):
            raise BadImage("the column `image` must hold encoded bytes, a struct with `bytes`, or uint8 CHW tensors")
        return decode(io.BytesIO(encoded), self.size, grey=is_grey)
