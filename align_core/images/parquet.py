"""Image sets in Parquet files."""

import io
from collections import Counter, OrderedDict
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from align_core.errors import InputError, reason_of
from align_core.images.config import ImageSetConfig
from align_core.images.decoding import BadImage, Header, Picture, Pixels, decode, from_array, header_of
from align_core.images.files import check_regular, printable
from align_core.images.fit import Fit
from align_core.images.image_set import CACHED_BYTES, ImageSet, encoded_array, row_ids
from align_core.images.labels import Labels, LeftOut, RawLabels, as_indices, as_targeted, written_from_0
from align_core.images.parquet_columns import Columns, class_names, columns_of
from align_core.images.shards import notes_on_shards


class Parquet(ImageSet):
    """One Parquet file, or a folder of them: columns `image` and `label`, perhaps `image_id` and `targeted_label`.

    The settings of the set may give the first three other names.
    An image is encoded bytes, a struct with the field `bytes` (as Hugging Face's datasets write it), or a fixed-shape
    uint8 tensor [C, H, W]. A label is a class name or a class index, which Hugging Face's ClassLabel gives a name.
    Without a column of ids, an id is the zero-padded row, counted over the sorted files.
    """

    def __init__(self, path: Path, config: ImageSetConfig, fit: Fit, channels: int | None) -> None:
        super().__init__(fit, channels)
        self.path, self.config = path, config
        self._lock = Lock()  # threads decode at once, but share the row groups that are kept in memory
        self._read: OrderedDict[int, pa.Array] = OrderedDict()

    def files(self) -> list[Path]:
        """The file, or all Parquet files of the folder in sorted order.

        What begins with a dot or an underscore, and `__MACOSX`, is skipped: other programs leave it there.
        """
        if not self.path.is_dir():
            return [self.path]
        return [file for file in self._in_folder if file.suffix.lower() == ".parquet"]

    @cached_property
    def _in_folder(self) -> list[Path]:
        """All files of the folder in sorted order, without what other programs leave there."""
        found = sorted(file for file in self.path.rglob("*") if not file.is_dir())
        return [file for file in found if not any(part[0] in "._" for part in file.relative_to(self.path).parts)]

    @cached_property
    def _suffixes(self) -> dict[str, int]:
        """The number of files in the folder that are no Parquet files, by suffix."""
        files = self._in_folder if self.path.is_dir() else []
        suffixes = (printable(file.suffix.lower() or "without a suffix") for file in files)
        return {suffix: count for suffix, count in Counter(suffixes).items() if suffix != ".parquet"}

    @cached_property
    def _schemas(self) -> dict[Path, pa.Schema]:
        """The schema of every file. Raises InputError for one that cannot be read, or where there is no file."""
        schemas = {file: _opened(file).schema_arrow for file in self.files()}
        if not schemas:
            others = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(self._suffixes.items()))
            raise InputError(
                f"{self.path}: this folder contains no file of the suffix .parquet{others and f', but {others}'}"
            )
        return schemas

    @cached_property
    def _columns(self) -> Columns:
        return columns_of(self.path, self._schemas, self.config)

    @cached_property
    def _table(self) -> pa.Table:
        """The labels, and the ids where there are any, of all files: everything but the images."""
        columns = self._columns.without_images
        try:
            tables = [pq.ParquetFile(file).read(columns=columns) for file in self.files()]
            return pa.concat_tables(tables, promote_options="permissive")  # of integers of other sizes
        except (OSError, pa.ArrowException) as problem:
            raise InputError(f"{self.path}: cannot be read as Parquet ({reason_of(problem)})") from problem

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row of each image id, counted over all files, in the order of the ids."""
        rows: dict[str, int] = {}
        for row, image_id in enumerate(self._ids):
            if (other := rows.setdefault(image_id, row)) != row:
                name = self._columns.image_id
                raise InputError(f"{self.path}: the `{name}` {image_id!r} occurs twice, in rows {other} and {row}")
        return dict(sorted(rows.items()))

    @property
    def has_ids(self) -> bool:
        """Whether a column has the ids, and they are not the numbers of the rows."""
        return self._columns.image_id is not None

    @cached_property
    def _ids(self) -> list[str]:
        """The id of each row; a row without one is named by its number."""
        name, numbers = self._columns.image_id, row_ids(self._table.num_rows)
        if name is None:
            return numbers
        try:
            given = self._table[name].to_pylist()
        except ValueError as problem:
            raise InputError(f"{self.path}: an `{name}` is no text of UTF-8 ({reason_of(problem)})") from problem
        return [f"row {n}" if own is None else str(own) for own, n in zip(given, numbers, strict=True)]

    @cached_property
    def _refused(self) -> dict[str, str]:
        """Why rows without an id or a label cannot be used, by image id."""
        refused: dict[str, str] = {}
        for column in {self._columns.image_id, self._columns.label} - {None}:
            missing = np.flatnonzero(self._table[column].is_null().to_numpy())
            refused |= {self._ids[row]: f"its `{column}` is null" for row in missing}
        return refused

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        """The names that Hugging Face's ClassLabel gives to the indices; none where the files hold none."""
        found = {class_names(schema, self._columns.label) for schema in self._schemas.values()}
        if len(found) > 1:
            raise InputError(f"{self.path}: its files name different classes in their schemas")
        return found.pop()

    @cached_property
    def _first_class(self) -> int:
        """The number of the first class, where labels are integers without names."""
        if self.config.first_class is not None and self._class_names:
            raise InputError(
                f"{self.path}: the schema names the class of each integer in `{self._columns.label}`; leave "
                "`first_class` out"
            )
        return self.config.first_class or 0

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

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._firsts, row, side="right")) - 1

    def _image(self, row: int) -> Any:
        position = self._group_of(row)
        return self._images_of(position)[row - int(self._firsts[position])]

    def _images_of(self, position: int) -> pa.Array:
        """The images of one row group, still encoded.

        The groups read last stay in memory, up to a limit, because training asks for images in random order and a group
        can only be read whole.
        """
        if position not in self._read:
            (file, index, _), name = self._groups[position], self._columns.image
            try:
                column = pq.ParquetFile(file).read_row_group(index, columns=[name])[name].combine_chunks()
            except (OSError, pa.ArrowException) as problem:
                raise InputError(f"{file}: cannot be read as Parquet ({problem})") from problem
            self._read[position] = column
        self._read.move_to_end(position)
        while len(self._read) > 1 and sum(column.nbytes for column in self._read.values()) > CACHED_BYTES:
            self._read.popitem(last=False)
        return self._read[position]

    def listing(self) -> tuple[list[str], Labels]:
        """Sorted ids, and their labels. Raises InputError where these are neither integers nor text."""
        ids, values = list(self._rows), self._classes(self._columns.label)
        empty = [image_id for image_id, name in zip(ids, values.tolist(), strict=True) if name == ""]
        if set(empty) - self._refused.keys():
            raise InputError(f"{self.path}: image {empty[0]} has no label")
        return ids, values

    def labels(self) -> RawLabels:
        """The labels, and the names that their ClassLabel gives them, if any."""
        values = self.listing()[1]
        if values.dtype.kind == "U":
            return RawLabels(values, tuple(name for name in np.unique(values).tolist() if name))
        return RawLabels(values, self._class_names, bool(self._class_names))

    def targeted(self) -> RawLabels | None:
        """The column `targeted_label`; its integers have the names that the labels' ClassLabel gives them, if any."""
        if self._columns.targeted is None:
            return None
        values = self._classes(self._columns.targeted)
        if values.dtype.kind == "U":
            return RawLabels(written_from_0(values.tolist(), self._first_class))
        is_ordered = bool(self._class_names)
        return RawLabels(values, self._class_names if is_ordered else (), is_ordered)

    def _classes(self, name: str) -> Labels:
        """A column of class indices or class names, in the order of the ids; -1 or "" where there is none."""
        column, order = self._table[name], list(self._rows.values())
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_integer(column.type):
            first = self._first_class
            numbers: Labels = column.fill_null(first).to_numpy()[order]
            if name == self._columns.label:
                return as_indices(numbers, list(self._rows), self.path, first)
            targeted = as_targeted(numbers, list(self._rows), self.path, first)
            return np.where(column.is_null().to_numpy()[order], -1, targeted)
        try:
            texts = column.to_pylist()
        except ValueError as problem:
            raise InputError(f"{self.path}: a `{name}` is no text of UTF-8 ({reason_of(problem)})") from problem
        return np.array([text or "" for text in texts], dtype=np.str_)[order]

    def left_out(self) -> LeftOut:
        """Files of other suffixes, and rows without an id or a label."""
        return LeftOut(self._suffixes, refused=self._refused)

    def notes(self) -> list[str]:
        """Files that are missing by the names of the others, and files of several splits."""
        return notes_on_shards(self.files()) if self.path.is_dir() else []

    def file_of(self, image_id: str) -> Path:
        """The file that has the row of one image."""
        return self._groups[self._group_of(self._rows[image_id])][0]

    def decoded(self, image_id: str) -> Picture:
        """Decodes the image of one row. Raises BadImage where that is impossible."""
        stored = self._stored(image_id)
        return decode(io.BytesIO(stored)) if isinstance(stored, bytes) else from_array(stored)

    def encoded(self, image_id: str) -> bytes:
        """The encoded picture of one row, or shape and pixels of its tensor. Raises BadImage where there is neither."""
        stored = self._stored(image_id)
        return stored if isinstance(stored, bytes) else encoded_array(stored)

    def undecoded(self, image_id: str) -> tuple[bytes, Header]:
        """The encoded picture of one row, or shape and pixels of its tensor, and its header. Raises BadImage."""
        stored = self._stored(image_id)
        if isinstance(stored, bytes):
            return stored, header_of(stored)
        return encoded_array(stored), from_array(stored).header

    def _stored(self, image_id: str) -> bytes | Pixels:
        """The image of one row: an encoded picture, or an array uint8 [H, W, C]."""
        with self._lock:
            value = self._image(self._rows[image_id])
        if not value.is_valid:
            raise BadImage("it is null")
        if isinstance(value, pa.ExtensionScalar):
            pixels_CHW: npt.NDArray[Any] = value.to_numpy()
            if pixels_CHW.dtype != np.uint8 or pixels_CHW.ndim != 3 or pixels_CHW.shape[0] not in (1, 3):
                raise BadImage(
                    f"a tensor image must be uint8 CHW (C 1 or 3), not {pixels_CHW.dtype} {pixels_CHW.shape}"
                )
            return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
        plain = value.as_py()
        encoded = plain["bytes"] if isinstance(plain, dict) else plain
        if encoded is None:
            where = plain.get("path") if isinstance(plain, dict) else None
            raise BadImage(
                "its `bytes` are null"
                + (f", and the file that its `path` names is not read ({where})" if where else "")
            )
        if not isinstance(encoded, bytes):
            raise BadImage("it is neither encoded bytes, nor a struct with `bytes`, nor a uint8 CHW tensor")
        return encoded


def _opened(file: Path) -> pq.ParquetFile:
    """A Parquet file. Raises InputError where it is none, or ends early: what is read first stands at its end."""
    try:
        check_regular(file)
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as problem:
        raise InputError(
            f"{file}: cannot be read as Parquet ({reason_of(problem)}); if it was cut short, fetch it again"
        ) from problem
