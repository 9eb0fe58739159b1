"""Image sets in Parquet files."""

import io
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from align_core.errors import InputError
from align_core.images.decoding import BadImage, Pixels, decode, picture_of, starts_grey
from align_core.images.fit import Fit
from align_core.images.image_set import CACHED_BYTES, encoded_array, row_ids


class Parquet:
    """One Parquet file, or a folder of them, with the columns `image` and `label`, and perhaps `image_id`.

    An image is encoded bytes, a struct with the field `bytes` (as Hugging Face's datasets write it), or a fixed-shape
    uint8 tensor [C, H, W]. Without the column `image_id`, an id is the zero-padded row, counted over the sorted files.
    """

    def __init__(self, path: Path, fit: Fit) -> None:
        self.path, self.fit = path, fit
        self._lock = Lock()  # threads decode at once, but share the row groups that are kept in memory
        self._read: OrderedDict[int, pa.Array] = OrderedDict()

    def files(self) -> list[Path]:
        """The file, or all Parquet files of the folder in sorted order."""
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
        ids = table["image_id"].to_pylist() if "image_id" in table.column_names else row_ids(table.num_rows)
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
        while len(self._read) > 1 and sum(column.nbytes for column in self._read.values()) > CACHED_BYTES:
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
        """Sorted ids, and the column `label`. Raises InputError where it does not hold integers."""
        labels = self._table["label"].to_numpy()
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{self.path}: the column `label` must hold integers, not {labels.dtype}")
        ordered = sorted(self._rows.items())
        return [image_id for image_id, _ in ordered], labels[[row for _, row in ordered]].astype(np.int64)

    def read(self, image_id: str) -> Pixels:
        """Decodes the image of one row and fits it. Raises BadImage where that is impossible."""
        stored = self._stored(image_id)
        return self.fit.apply(self._decoded(stored)) if isinstance(stored, bytes) else self.fit.apply_to_array(stored)

    def picture(self, image_id: str) -> Image.Image:
        """Decodes the image of one row at its own size. Raises BadImage where that is impossible."""
        stored = self._stored(image_id)
        return self._decoded(stored) if isinstance(stored, bytes) else picture_of(stored)

    def encoded(self, image_id: str) -> bytes:
        """The encoded picture of one row, or shape and pixels of its tensor. Raises BadImage where there is neither."""
        stored = self._stored(image_id)
        return stored if isinstance(stored, bytes) else encoded_array(stored)

    def _decoded(self, encoded: bytes) -> Image.Image:
        return decode(io.BytesIO(encoded), grey=self._grey)

    def _stored(self, image_id: str) -> bytes | Pixels:
        """The image of one row: an encoded picture, or an array uint8 [H, W, C]."""
        with self._lock:
            value, _ = self._image(self._rows[image_id]), self._grey  # found once, before threads decode
        if isinstance(value, pa.ExtensionScalar):
            pixels_CHW: npt.NDArray[Any] = value.to_numpy()
            if pixels_CHW.dtype != np.uint8 or pixels_CHW.ndim != 3 or pixels_CHW.shape[0] not in (1, 3):
                raise BadImage(
                    f"a tensor image must be uint8 CHW (C 1 or 3), not {pixels_CHW.dtype} {pixels_CHW.shape}"
                )
            return pixels_CHW.transpose(1, 2, 0)
        encoded = self._encoded(value)
        if not isinstance(encoded, bytes):
            raise BadImage("the column `image` must hold encoded bytes, a struct with `bytes`, or uint8 CHW tensors")
        return encoded
