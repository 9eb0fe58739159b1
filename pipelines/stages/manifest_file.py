"""The manifest of an image set as a file, under a name that changes with the settings and the files of the set."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from align_core.images import Fit, ImageSetConfig, open_image_set
from align_core.images.manifest import Manifest
from pipelines.storage.store import fingerprint_of


def manifest_file(config: ImageSetConfig, fit: Fit) -> str:
    """The name under which the manifest of an image set is stored.

    It is a hash of the settings and of path, size and modification time of every file of the set, so that a changed
    set is not mistaken for the one that was inspected. Raises InputError or OSError if the set cannot be opened.
    """
    files = open_image_set(config, fit).files()
    state = [[str(file), *size_and_time(file)] for file in files]
    return f"images-{fingerprint_of([dataclasses.asdict(config), dataclasses.asdict(fit), state])}.parquet"


def size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds of a file; (-1, -1) if it does not exist."""
    state = os.stat(file) if file.exists() else None
    return (state.st_size, state.st_mtime_ns) if state else (-1, -1)


def manifest_to_bytes(manifest: Manifest) -> bytes:
    """Writes a manifest as a Parquet file: a row per image; its shape and the unreadable images in the metadata."""
    columns = {"image_id": manifest.ids, "label": manifest.labels, "content": manifest.contents}
    table = pa.table({**columns, "original": manifest.originals})
    about = {"unreadable": json.dumps(manifest.unreadable), "shape": json.dumps(manifest.shape)}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(about), sink, compression="zstd")
    return bytes(sink.getvalue())


def manifest_from_bytes(content: bytes) -> Manifest | None:
    """Reads what `manifest_to_bytes` wrote; None where it is damaged, so that the images are inspected again."""
    try:
        table = pq.read_table(pa.BufferReader(content))
        metadata = table.schema.metadata or {}
        unreadable, shape = (json.loads(metadata[key]) for key in (b"unreadable", b"shape"))
        return Manifest(
            ids=table["image_id"].to_pylist(),
            labels=table["label"].to_numpy().astype(np.int64),
            contents=table["content"].to_pylist(),
            originals=table["original"].to_pylist(),
            unreadable=[(image_id, reason) for image_id, reason in unreadable],
            shape=tuple(shape),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError):
        return None
