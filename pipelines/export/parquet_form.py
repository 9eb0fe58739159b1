"""A Parquet file of images as Hugging Face's `datasets` read and write them: structs of PNG bytes and a path."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.export.exportable import Chunk, Exportable
from pipelines.export.file_names import png_names
from pipelines.export.png_form import decoded, encoded
from pipelines.storage.store import Store

# Pictures are compressed already, no two are the same, and the least of them would be stored once more as a statistic.
_PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": ["label", "image_id"]}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(images: Exportable, store: Store, path: str) -> None:
    """Writes the columns `image`, `label`, `image_id` and, where targeted, `targeted_label`; a row group a chunk."""
    schema, names = _schema(images), iter(png_names(images.ids))
    with store.writing(path) as stream, pq.ParquetWriter(stream, schema, **_PLAIN) as writer:
        for chunk in images.read():
            pictures = [{"bytes": encoded(pixels), "path": next(names)} for pixels in chunk.pixels_BCHW]
            columns: dict[str, Any] = {"image": pictures, "label": chunk.labels_B, "image_id": chunk.ids}
            if chunk.towards_B is not None:
                columns["targeted_label"] = chunk.towards_B
            writer.write_table(pa.table(columns, schema))


def read(images: Exportable, store: Store, path: str) -> Iterator[Chunk]:
    """Decodes what was written, in chunks as long as those of `images`."""
    with store.open_input(path) as stream:
        file = pq.ParquetFile(stream)
        if file.metadata.num_rows != len(images) or file.num_row_groups != len(images.chunks):
            raise ValueError(f"it holds {file.metadata.num_rows} images, not {len(images)}")
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number)
            pixels = np.stack([decoded(own["bytes"]) for own in rows["image"].to_pylist()])
            towards = rows["targeted_label"].to_numpy() if "targeted_label" in rows.column_names else None
            yield Chunk(rows["image_id"].to_pylist(), rows["label"].to_numpy(), towards, pixels)


def _schema(images: Exportable) -> pa.Schema:
    """The columns, with the metadata by which `datasets` know that they are images and classes."""
    classes: dict[str, Any] = {"dtype": "int64", "_type": "Value"}
    if images.class_names is not None:
        classes = {"names": list(images.class_names), "_type": "ClassLabel"}
    fields = [("image", _IMAGE), ("label", pa.int64()), ("image_id", pa.string())]
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": classes,
        "image_id": {"dtype": "string", "_type": "Value"},
    }
    if images.is_targeted:
        fields.append(("targeted_label", pa.int64()))
        features["targeted_label"] = classes
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
