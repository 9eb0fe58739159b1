"""One npz file, as image sets of `kind: npz` are read: `images`, `labels`, `targeted_labels`; and `ids` beside them."""

import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipelines.export.exportable import Chunk, Exportable
from pipelines.storage.store import Store


def write(images: Exportable, store: Store, path: str) -> None:
    """Writes the file without compression, so that it can be mapped into memory; memory holds one chunk of it."""
    channels, height, width = images.shape
    towards: list[int] = []
    with store.writing(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            about = {"descr": "|u1", "fortran_order": False, "shape": (len(images), height, width, channels)}
            np.lib.format.write_array_header_1_0(member, about)
            for chunk in images.read():
                member.write(np.ascontiguousarray(chunk.pixels_BCHW.transpose(0, 2, 3, 1)).tobytes())
                towards += [] if chunk.towards_B is None else chunk.towards_B.tolist()
        columns = {"labels": images.labels_N.astype(np.int64), "ids": np.array(images.ids, dtype=np.str_)}
        if images.is_targeted:
            columns["targeted_labels"] = np.array(towards, dtype=np.int64)
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def read(images: Exportable, store: Store, path: str) -> Iterator[Chunk]:
    """Decodes what was written, in chunks as long as those of `images`."""
    with store.open_input(path) as stream, zipfile.ZipFile(stream) as archive:
        labels, ids = (_array(archive, name) for name in ("labels", "ids"))
        towards = _array(archive, "targeted_labels") if "targeted_labels.npy" in archive.namelist() else None
        with archive.open("images.npy") as member:
            shape = _header(member)
            if shape[0] != len(images):
                raise ValueError(f"it holds {shape[0]} images, not {len(images)}")
            for rows in images.chunks:
                content = member.read(len(rows) * int(np.prod(shape[1:])))
                pixels = np.frombuffer(content, np.uint8).reshape(len(rows), *shape[1:]).transpose(0, 3, 1, 2)
                part = slice(rows.start, rows.stop)
                yield Chunk(ids[part].tolist(), labels[part], None if towards is None else towards[part], pixels)


def _array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _header(member: IO[bytes]) -> tuple[int, ...]:
    """The shape of an array of bytes in the order of C, at whose values the file then stands."""
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError("`images` is of another version")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
    if is_fortran or dtype != np.uint8:
        raise ValueError(f"`images` is {dtype}")
    return tuple(shape)
