"""Images in the files of single chunks: a row of bytes each, which Parquet writes six times as fast as tensors.

Parquet knows no tensors: each 8-bit number of one is a 32-bit number of a list, with a level of its own. A chunk of 100
images of 224 pixels takes 0.3 s of a core to write so, and 0.08 s to read; as bytes it takes 0.05 and 0.01 s. The files
of single chunks are read by Witness alone. Finished tables hold tensors, which other programs read.
"""

import json

import numpy as np
import pyarrow as pa

_KEY = b"witness.tensor"


def flat(table: pa.Table) -> pa.Table:
    """The table with a column of bytes in place of each column of 8-bit tensors. `tensors_of` is its inverse."""
    for at, field in enumerate(table.schema):
        if isinstance(field.type, pa.FixedShapeTensorType) and field.type.value_type == pa.uint8():
            shape = {"shape": field.type.shape, "permutation": field.type.permutation}
            pixels = np.ascontiguousarray(table.column(at).combine_chunks().storage.flatten())
            width = int(np.prod(field.type.shape))
            rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), table.num_rows, [None, pa.py_buffer(pixels)])
            table = table.set_column(at, pa.field(field.name, rows.type, metadata={_KEY: json.dumps(shape)}), rows)
    return table


def tensors_of(table: pa.Table) -> pa.Table:
    """The table with its tensors again. One that holds none as bytes is returned as it is."""
    for at, field in enumerate(table.schema):
        if field.metadata and _KEY in field.metadata:
            kind = pa.fixed_shape_tensor(pa.uint8(), **json.loads(field.metadata[_KEY]))
            rows = table.column(at).combine_chunks()
            width = rows.type.byte_width
            pixels = pa.Array.from_buffers(
                pa.uint8(), len(rows) * width, [None, rows.buffers()[1]], offset=rows.offset * width
            )
            listed = pa.FixedSizeListArray.from_arrays(pixels, type=kind.storage_type)
            table = table.set_column(at, field.name, pa.ExtensionArray.from_storage(kind, listed))
    return table
