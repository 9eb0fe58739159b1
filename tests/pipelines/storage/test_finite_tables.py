"""No reader of a table returns a number that is not finite: it came from a prediction that was none."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.finite import check_finite
from pipelines.storage.joint_table import JointFolder, JointTable
from pipelines.storage.store import Store

TABLE, OTHER = (ChunkedTable(f"outcomes/s/pgd/{name}", {"name": name}) for name in "AB")
ROWS = [3, 2]


def rows(chunk: int, *bad: int) -> pa.Table:
    """The rows of a chunk; the confidence of those in `bad` is NaN."""
    confidence = np.full(ROWS[chunk], 0.5, dtype=np.float32)
    confidence[list(bad)] = np.nan
    ids = [f"{number + sum(ROWS[:chunk]):05d}" for number in range(ROWS[chunk])]
    return pa.table({"image_id": ids, "label": [0] * ROWS[chunk], "confidence": confidence})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([np.nan, 0.5], "confidence is not finite for a$"),
        ([0.5, -np.inf], "confidence is not finite for b$"),
        ([np.nan] * 5, "confidence is not finite for a, b, c and 2 more$"),
    ],
)
def test_the_images_are_named(values: list[float], said: str) -> None:
    ids = list("abcde")[: len(values)]
    with pytest.raises(pa.ArrowInvalid, match=said):
        check_finite(pa.table({"image_id": ids, "confidence": pa.array(values, from_pandas=False)}))


def test_empty_cells_and_whole_numbers_are_let_be() -> None:
    check_finite(pa.table({"image_id": ["a", "b"], "confidence": [None, 0.5], "label": [1, None]}))
    check_finite(pa.table({"image_id": pa.array([], pa.string()), "confidence": pa.array([], pa.float32())}))


def finished(store: Store) -> None:
    """A finished table as an old version left it, with a confidence that is NaN."""
    for chunk in range(len(ROWS)):
        TABLE.write_chunk(store, chunk, rows(chunk))
    assert TABLE.finish(store, ROWS) == []
    with store.open_input(TABLE.finished_file) as source:
        file = pq.ParquetFile(source)
        groups, metadata = [file.read_row_group(number) for number in range(len(ROWS))], file.schema_arrow.metadata
    groups[1] = rows(1, 0)
    with (
        store.writing(TABLE.finished_file) as stream,
        pq.ParquetWriter(stream, groups[0].schema.with_metadata(metadata)) as writer,
    ):
        for group in groups:
            writer.write_table(group.replace_schema_metadata(metadata))


def test_a_finished_table_is_not_read_whichever_columns_are_asked_for(store: Store) -> None:
    finished(store)
    for columns in (["label"], ["image_id", "label"], ["image_id", "confidence"]):
        with pytest.raises(pa.ArrowInvalid, match="confidence is not finite for "):
            TABLE.read(store, columns)
    assert TABLE.read_chunk(store, 0, ROWS[0]).num_rows == 3
    with pytest.raises(pa.ArrowInvalid, match="confidence is not finite for 00003"):
        TABLE.read_chunk(store, 1, ROWS[1])


def test_a_chunk_that_is_there_already_is_made_again(store: Store) -> None:
    TABLE.write_chunk(store, 0, rows(0))
    TABLE.write_chunk(store, 1, rows(1, 1))
    assert TABLE.finish(store, ROWS) == [1]
    assert TABLE.missing(store, store.listing(), len(ROWS)) == {1}
    TABLE.write_chunk(store, 1, rows(1))
    assert TABLE.finish(store, ROWS) == []
    assert TABLE.read(store, ["confidence"])["confidence"].to_pylist() == [0.5] * 5


def test_so_is_one_in_a_file_of_several_tables(store: Store) -> None:
    joint = JointTable(JointFolder(".evaluate/s", ((TABLE, OTHER),), "outcomes/s/pgd"), 0, ("image_id", "label"))
    joint.write_chunk(store, 0, {0: rows(0), 1: rows(0, 2)})
    joint.write_chunk(store, 1, {0: rows(1), 1: rows(1)})
    assert joint.finish(store, ROWS) == [0]
    assert joint.missing(store, store.listing(), len(ROWS)) == {0: (0, 1)}
    joint.write_chunk(store, 0, {0: rows(0), 1: rows(0)})
    assert joint.finish(store, ROWS) == []
