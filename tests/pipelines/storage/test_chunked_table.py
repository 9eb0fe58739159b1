"""A chunked table is complete when it is finished, knows which chunks are missing, and mixes no two settings."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

ROWS = [3, 3, 2]
TABLE = ChunkedTable("adversarial/source/pgd", {"seed": 0, "attack": {"eps": 0.1}})
OTHER = ChunkedTable("adversarial/source/pgd", {"seed": 1, "attack": {"eps": 0.1}})


def chunk(number: int, rows: int | None = None) -> pa.Table:
    """A chunk of images; every pixel of an image has the image's number as its value."""
    count = ROWS[number] if rows is None else rows
    ids = np.arange(count) + sum(ROWS[:number])
    images = np.broadcast_to(ids[:, None, None, None], (count, 3, 4, 4)).astype(np.uint8)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(images))
    return pa.table({"image_id": [f"{i:05d}" for i in ids], "image": tensors})


def write(store: Store, *numbers: int, table: ChunkedTable = TABLE) -> None:
    for number in numbers:
        table.write_chunk(store, number, chunk(number))


def names(store: Store, folder: str = TABLE.folder) -> list[str]:
    return sorted(store.listing(folder).get(folder, []))


def damage(store: Store, number: int, how: str) -> None:
    """Damages the file of one chunk, or deletes it."""
    file = TABLE.chunk_file(number)
    content = store.read(file)
    if how == "truncated":
        store.write(file, content[:-20])
    elif how == "empty":
        store.write(file, b"")
    elif how == "too few rows":
        TABLE.write_chunk(store, number, chunk(number, ROWS[number] - 1))
    else:
        store.delete(file)


def test_its_states_from_empty_to_finished(store: Store) -> None:
    def state() -> tuple[bool, set[int], str | None]:
        listing = store.listing()
        return TABLE.is_finished(listing), TABLE.done_chunks(listing), TABLE.failure(store, listing)

    assert state() == (False, set(), None)
    write(store, 2, 0)
    assert state() == (False, {0, 2}, None)
    TABLE.write_failure(store, 1, "chunk 1: no gradient")
    assert state() == (False, {0, 2}, "chunk 1: no gradient")
    store.delete(TABLE.failed_file())
    write(store, 1)
    assert TABLE.finish(store, ROWS) == []
    assert state() == (True, set(), None)
    assert names(store) == [f"{TABLE.fingerprint}.parquet"]


def test_the_finished_table_holds_every_chunk_in_order_as_a_row_group(store: Store) -> None:
    write(store, 2, 1, 0)
    TABLE.finish(store, ROWS)
    with store.open_input(TABLE.finished_file) as source:
        metadata = pq.ParquetFile(source).metadata
        assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == ROWS
    whole = TABLE.read(store, ["image_id", "image"])
    assert whole["image_id"].to_pylist() == [f"{i:05d}" for i in range(sum(ROWS))]
    images = whole["image"].combine_chunks().to_numpy_ndarray()
    assert images.shape == (8, 3, 4, 4)
    assert (images == np.arange(8)[:, None, None, None]).all()
    assert TABLE.read(store, ["image_id"]).column_names == ["image_id"]


@pytest.mark.parametrize("finished", [False, True])
def test_a_chunk_is_read_from_its_own_file_or_from_the_finished_table(store: Store, finished: bool) -> None:
    write(store, 0, 1, 2)
    if finished:
        TABLE.finish(store, ROWS)
    for number, rows in enumerate(ROWS):
        assert TABLE.read_chunk(store, number, rows).equals(chunk(number))
    with pytest.raises(pa.ArrowInvalid, match="chunk 1 has 3 rows, not 4"):
        TABLE.read_chunk(store, 1, 4)


def test_chunks_of_a_finished_table_that_was_made_again_are_those_of_the_new_one(store: Store) -> None:
    """A process remembers where the chunks lie in a finished file, and must not look there in another."""
    for first in (0, 1):
        for number, rows in enumerate(ROWS):
            TABLE.write_chunk(store, number, chunk((number + first) % 2, rows))
        TABLE.finish(store, ROWS)
        for number, rows in enumerate(ROWS):
            assert TABLE.read_chunk(store, number, rows).equals(chunk((number + first) % 2, rows))
        store.delete(TABLE.finished_file)


@pytest.mark.parametrize("how", ["truncated", "empty", "missing", "too few rows"])
def test_a_damaged_chunk_is_found_and_made_again(store: Store, how: str) -> None:
    write(store, 0, 1, 2)
    damage(store, 1, how)
    with pytest.raises((OSError, pa.ArrowException)):
        TABLE.read_chunk(store, 1, ROWS[1])
    assert TABLE.finish(store, ROWS) == [1]
    assert not TABLE.is_finished(store.listing())
    assert TABLE.done_chunks(store.listing()) == {0, 2}
    write(store, 1)
    assert TABLE.finish(store, ROWS) == []
    assert TABLE.read(store, ["image_id"]).num_rows == sum(ROWS)


def test_files_made_with_other_settings_are_moved_and_reported(store: Store) -> None:
    write(store, 0, 1, 2, table=OTHER)
    OTHER.finish(store, ROWS)
    write(store, 0, table=OTHER)
    OTHER.write_failure(store, 1, "why")
    write(store, 0)
    assert TABLE.done_chunks(store.listing()) == {0}
    messages: list[str] = []
    TABLE.set_aside_others(store, store.listing(), messages.append)
    assert names(store) == [f"{TABLE.fingerprint}-chunk-000000.parquet"]
    (line,) = messages
    stale = line.partition("moved to ")[2]
    assert line.startswith(f"{TABLE.folder}: ") and stale.startswith(".stale/")
    assert len(names(store, stale)) == 3
    with store.open_input(f"{stale}/{OTHER.fingerprint}.parquet") as source:
        assert pq.ParquetFile(source).read().num_rows == sum(ROWS)
    TABLE.set_aside_others(store, store.listing(), messages.append)
    assert len(messages) == 1


def test_the_finished_file_records_its_inputs_and_versions(store: Store) -> None:
    write(store, 0, 1, 2)
    TABLE.finish(store, ROWS)
    with store.open_input(TABLE.finished_file) as source:
        about = pq.ParquetFile(source).schema_arrow.metadata
    assert json.loads(about[b"witness.inputs"]) == TABLE.inputs
    assert "torch" in json.loads(about[b"witness.versions"])


def test_chunks_made_before_and_after_an_upgrade_are_joined(store: Store) -> None:
    write(store, 0, 1, 2)
    with store.writing(TABLE.chunk_file(1)) as stream:
        pq.write_table(chunk(1).replace_schema_metadata({"witness.versions": "{}"}), stream)
    assert TABLE.finish(store, ROWS) == []
    assert TABLE.read_chunk(store, 1, ROWS[1]).equals(chunk(1))


def test_the_fingerprint_depends_on_the_inputs_and_not_on_the_folder() -> None:
    assert ChunkedTable("elsewhere", dict(reversed(TABLE.inputs.items()))).fingerprint == TABLE.fingerprint
    assert OTHER.fingerprint != TABLE.fingerprint


def test_files_of_other_names_are_no_chunks_and_stay_where_they_are(store: Store) -> None:
    write(store, 0)
    start = f"{TABLE.folder}/{TABLE.fingerprint}"
    strays = [f"{start}-chunk-{name}.parquet" for name in ("abc", "", "-1", "1", "000001.tmp", "9" * 30)]
    strays += [f"{TABLE.folder}/{name}" for name in (".DS_Store", "notes.json", "copy.parquet", "x.part")]
    for stray in strays:
        store.write(stray, b"")
    said: list[str] = []
    TABLE.set_aside_others(store, store.listing(), said.append)
    OTHER.set_aside_others(store, {TABLE.folder: ["copy.parquet", ".DS_Store"]}, said.append)
    assert said == []
    assert TABLE.done_chunks(store.listing()) == {0}
    assert all(store.exists(stray) for stray in strays)
