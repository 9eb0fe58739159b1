"""Image sets in Parquet files."""

import io
import json
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
from align_core.images.decoding import BadImage, Picture, Pixels, decode, from_array
from align_core.images.files import check_regular, printable
from align_core.images.fit import Fit
from align_core.images.image_set import CACHED_BYTES, ImageSet, encoded_array, row_ids
from align_core.images.labels import TARGETED, Labels, LeftOut, RawLabels, as_indices


class Parquet(ImageSet):
    """One Parquet file, or a folder of them: columns `image` and `label`, perhaps `image_id` and `targeted_label`.

    An image is encoded bytes, a struct with the field `bytes` (as Hugging Face's datasets write it), or a fixed-shape
    uint8 tensor [C, H, W]. A label is a class name or a class index, which Hugging Face's ClassLabel gives a name.
    Without the column `image_id`, an id is the zero-padded row, counted over the sorted files.
    """

    def __init__(self, path: Path, fit: Fit, channels: int | None) -> None:
        super().__init__(fit, channels)
        self.path = path
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
    def _table(self) -> pa.Table:
        """The labels, and the ids where there are any, of all files: everything but the images."""
        try:
            for file in self.files():
                check_regular(file)
            tables = [pq.ParquetFile(file) for file in self.files()]
            if not tables:
                others = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(self._suffixes.items()))
                raise InputError(
                    f"{self.path}: this folder contains no file of the suffix .parquet{others and f', but {others}'}"
                )
            names = [{"image", "label", "image_id", TARGETED} & set(table.schema_arrow.names) for table in tables]
            if not names[0] >= {"image", "label"} or any(others != names[0] for others in names):
                raise InputError(
                    f"{self.path}: a Parquet image set needs the columns `image` and `label` in every file, "
                    f"and `image_id` and `{TARGETED}` either in every file or in none"
                )
            for file, table in zip(self.files(), tables, strict=True):
                _check_columns(file, table.schema_arrow)
            return pa.concat_tables([table.read(columns=sorted(names[0] - {"image"})) for table in tables])
        except (OSError, pa.ArrowException) as problem:
            raise InputError(f"{self.path}: cannot be read as Parquet ({reason_of(problem)})") from problem

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row of each image id, counted over all files, in the order of the ids."""
        rows: dict[str, int] = {}
        for row, image_id in enumerate(self._ids):
            if (other := rows.setdefault(image_id, row)) != row:
                raise InputError(f"{self.path}: the `image_id` {image_id!r} occurs twice, in rows {other} and {row}")
        return dict(sorted(rows.items()))

    @cached_property
    def _ids(self) -> list[str]:
        """The id of each row; a row without one is named by its number."""
        table, numbers = self._table, row_ids(self._table.num_rows)
        if "image_id" not in table.column_names:
            return numbers
        try:
            given = table["image_id"].to_pylist()
        except ValueError as problem:
            raise InputError(f"{self.path}: an `image_id` is no text of UTF-8 ({reason_of(problem)})") from problem
        return [f"row {n}" if own is None else str(own) for own, n in zip(given, numbers, strict=True)]

    @cached_property
    def _refused(self) -> dict[str, str]:
        """Why rows without an id or a label cannot be used, by image id."""
        refused: dict[str, str] = {}
        for column in set(self._table.column_names) & {"image_id", "label"}:
            missing = np.flatnonzero(self._table[column].is_null().to_numpy())
            refused |= {self._ids[row]: f"its `{column}` is null" for row in missing}
        return refused

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        """The names that Hugging Face's ClassLabel gives to the indices; none where the files hold none."""
        found = {file: _class_label(pq.ParquetFile(file).schema_arrow) for file in self.files()}
        if len(set(found.values())) > 1:
            raise InputError(f"{self.path}: its files name different classes in their schemas")
        return next(iter(found.values()))

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
        while len(self._read) > 1 and sum(column.nbytes for column in self._read.values()) > CACHED_BYTES:
            self._read.popitem(last=False)
        return self._read[position]

    def listing(self) -> tuple[list[str], Labels]:
        """Sorted ids, and the column `label`. Raises InputError where it holds neither integers nor text."""
        ids, values = list(self._rows), self._classes("label")
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
        if TARGETED not in self._table.column_names:
            return None
        values = self._classes(TARGETED)
        is_ordered = values.dtype.kind != "U" and bool(self._class_names)
        return RawLabels(values, self._class_names if is_ordered else (), is_ordered)

    def _classes(self, name: str) -> Labels:
        """A column of class indices or class names, in the order of the ids; -1 or "" where there is none."""
        column, order = self._table[name], list(self._rows.values())
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_integer(column.type):
            indices: Labels = column.fill_null(0).to_numpy()[order]
            if name == TARGETED:
                indices = np.where(column.is_null().to_numpy()[order], -1, indices)
            return as_indices(indices, list(self._rows), self.path)
        try:
            texts = column.to_pylist()
        except ValueError as problem:
            raise InputError(f"{self.path}: a `{name}` is no text of UTF-8 ({reason_of(problem)})") from problem
        return np.array([text or "" for text in texts], dtype=np.str_)[order]

    def left_out(self) -> LeftOut:
        """Files of other suffixes, and rows without an id or a label."""
        return LeftOut(self._suffixes, refused=self._refused)

    def decoded(self, image_id: str) -> Picture:
        """Decodes the image of one row. Raises BadImage where that is impossible."""
        stored = self._stored(image_id)
        return decode(io.BytesIO(stored)) if isinstance(stored, bytes) else from_array(stored)

    def encoded(self, image_id: str) -> bytes:
        """The encoded picture of one row, or shape and pixels of its tensor. Raises BadImage where there is neither."""
        stored = self._stored(image_id)
        return stored if isinstance(stored, bytes) else encoded_array(stored)

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
            raise BadImage("its `bytes` are null")
        if not isinstance(encoded, bytes):
            raise BadImage("the column `image` must hold encoded bytes, a struct with `bytes`, or uint8 CHW tensors")
        return encoded


def _check_columns(file: Path, schema: pa.Schema) -> None:
    """Raises InputError for columns of types that no image set has."""
    image = schema.field("image").type
    if pa.types.is_struct(image) and image.get_field_index("bytes") < 0:
        fields = ", ".join(f"`{image.field(i).name}`" for i in range(image.num_fields))
        raise InputError(f"{file}: the column `image` holds structs of {fields}, without the `bytes` of the images")
    for name in {"label", TARGETED} & set(schema.names):
        label = _plain_type(schema.field(name).type)
        if not (pa.types.is_integer(label) or _is_text(label)):
            raise InputError(f"{file}: the column `{name}` must hold integers or class names, not {label}")
    if "image_id" in schema.names:
        own = _plain_type(schema.field("image_id").type)
        if not (pa.types.is_integer(own) or _is_text(own)):
            raise InputError(f"{file}: the column `image_id` must hold text or integers, not {own}")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _class_label(schema: pa.Schema) -> tuple[str, ...]:
    """The names of a ClassLabel in the column `label`, from the metadata that Hugging Face's datasets write."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
