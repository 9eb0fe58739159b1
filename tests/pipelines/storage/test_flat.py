"""Tensors in the files of single chunks are rows of bytes, and come back as they were."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.flat import flat, tensors_of
from pipelines.storage.store import Store

ROWS = [4, 3]
TABLE = ChunkedTable("adversarial/source/pgd", {"seed": 0})


def chunk(rows: int, shape: tuple[int, ...]) -> pa.Table:
    images = np.random.default_rng(rows).integers(0, 256, (rows, *shape), dtype=np.uint8)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    return pa.table({"image_id": [str(row) for row in range(rows)], "image": tensors, "l2": np.ones(rows, np.float32)})


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 2, 2), (1, 1, 1)])
def test_tensors_come_back_as_they_were(shape: tuple[int, ...]) -> None:
    table = chunk(6, shape)
    bytes_of = flat(table)
    assert bytes_of.schema.field("image").type == pa.binary(int(np.prod(shape)))
    assert bytes_of["image"][2].as_py() == table["image"].combine_chunks().to_numpy_ndarray()[2].tobytes()
    assert tensors_of(bytes_of).equals(table, check_metadata=True)


def test_parts_of_arrays_come_back_as_they_were() -> None:
    """Arrays may begin within their buffers, and columns may have several."""
    several = pa.concat_tables([chunk(6, (3, 5, 4)).slice(2, 3), chunk(4, (3, 5, 4)).slice(1)])
    assert tensors_of(flat(several)).equals(several)
    assert tensors_of(flat(several).slice(1, 4)).equals(several.slice(1, 4))


def test_other_columns_stay_as_they_are() -> None:
    floats = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((2, 3), np.float32))
    table = pa.table({"image": [b"ab", b"cd"], "bytes": pa.array([b"ab", b"cd"], pa.binary(2)), "features": floats})
    assert flat(table) is table
    assert tensors_of(table) is table


def test_a_finished_table_is_the_same_whether_its_chunks_were_written_as_tensors(tmp_path: Path) -> None:
    """As earlier versions wrote them, whose runs go on."""
    found = []
    for name in ("bytes", "tensors"):
        store = Store(str(tmp_path), name)
        for number, rows in enumerate(ROWS):
            table = chunk(rows, (3, 5, 4))
            if name == "bytes" or number == 0:
                TABLE.write_chunk(store, number, table)
            else:
                with store.writing(TABLE.chunk_file(number)) as stream:
                    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
            assert TABLE.read_chunk(store, number, rows).equals(table)
        assert TABLE.finish(store, ROWS) == []
        found.append(store.read(TABLE.finished_file))
    assert found[0] == found[1]
    assert isinstance(pq.read_schema(pa.BufferReader(found[0])).field("image").type, pa.FixedShapeTensorType)
