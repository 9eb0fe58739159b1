"""`fill` completes its tables whatever happens to the work: it requests only missing chunks, and repeats on failure."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.compute.fill import Missing, fill
from pipelines.compute.ray_data import PipelineBroke
from pipelines.failure import RunFailed
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

ROWS = [2, 2, 1]
TABLES = [ChunkedTable(f"clean/{name}", {"name": name}) for name in "ab"]

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), "tiny")


class Work:
    """Makes the missing chunks, and fails after the given number of them at each call; records what was requested."""

    def __init__(self, store: Store, *breaks_after: int) -> None:
        self.store, self.breaks_after = store, list(breaks_after)
        self.asked: list[dict[str, set[int]]] = []
        self.patience: list[float] = []

    def __call__(self, missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
        self.asked.append({folder: set(chunks) for folder, chunks in missing.items()})
        self.patience.append(patience)
        left = self.breaks_after.pop(0) if self.breaks_after else 1_000
        for table in TABLES:
            for chunk in sorted(missing.get(table.folder, ())):
                if not left:
                    raise PipelineBroke("a node was lost")
                left -= 1
                self.make(table, chunk)
                yield table.folder, chunk, 1

    def make(self, table: ChunkedTable, chunk: int) -> None:
        table.write_chunk(self.store, chunk, pa.table({"image_id": [f"{chunk}/{row}" for row in range(ROWS[chunk])]}))


def filled(store: Store, work: Work, messages: list[str] | None = None) -> int:
    return fill(store, TABLES, ROWS, (messages if messages is not None else []).append, work, patience=5)


def assert_complete(store: Store) -> None:
    for table in TABLES:
        ids = table.read(store, ["image_id"])["image_id"].to_pylist()
        assert ids == ["0/0", "0/1", "1/0", "1/1", "2/0"]
        assert list(store.listing(table.folder).values()) == [[f"{table.fingerprint}.parquet"]]


def test_every_chunk_is_made_once(store: Store) -> None:
    work = Work(store)
    assert filled(store, work) == 6
    assert work.asked == [{table.folder: {0, 1, 2} for table in TABLES}]
    assert_complete(store)
    assert filled(store, work) == 0
    assert len(work.asked) == 1


def test_finished_chunks_are_not_requested(store: Store) -> None:
    work = Work(store)
    for chunk in range(3):
        work.make(TABLES[0], chunk)
    work.make(TABLES[1], 1)
    assert filled(store, work) == 2
    assert work.asked == [{TABLES[1].folder: {0, 2}}]
    assert_complete(store)


def test_work_that_fails_is_repeated_for_the_missing_chunks(store: Store) -> None:
    messages: list[str] = []
    work = Work(store, 4, 0)
    assert filled(store, work, messages) == 6
    rest = {TABLES[1].folder: {1, 2}}
    assert work.asked[1:] == [rest, rest]
    assert work.patience == [5, 5, 10]  # doubled after an attempt that made nothing
    assert messages == ["the work broke off (a node was lost); it begins again with what is missing"] * 2
    assert_complete(store)


def test_three_attempts_in_a_row_without_progress_fail_the_run(store: Store) -> None:
    work = Work(store, 2, 0, 0, 0)
    with pytest.raises(
        RunFailed, match=r"3 attempts in a row finished nothing more \(a node was lost\).*compute\.patience"
    ):
        filled(store, work)
    assert filled(store, Work(store)) == 4  # what was made is kept
    assert_complete(store)


def test_a_chunk_that_is_reported_twice_counts_once(store: Store) -> None:
    """Ray repeats the work of a lost process, which must not make an incomplete table count as complete."""

    class Repeating(Work):
        def __call__(self, missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
            for made in super().__call__(missing, patience):
                yield from [made, made]

    messages: list[str] = []
    filled(store, Repeating(store), messages)
    assert messages == []
    assert_complete(store)


@pytest.mark.parametrize("damage", [b"", None])
def test_a_damaged_chunk_is_made_again(store: Store, damage: bytes | None) -> None:
    work, messages = Work(store), list[str]()
    for chunk in range(3):
        work.make(TABLES[0], chunk)
    file = TABLES[0].chunk_file(1)
    store.write(file, damage if damage is not None else store.read(file)[:-9])
    assert filled(store, work, messages) == 4
    assert work.asked == [{TABLES[1].folder: {0, 1, 2}}, {TABLES[0].folder: {1}}]
    assert messages == [f"{TABLES[0].folder}: 1 chunks are damaged or missing and are made again"]
    assert_complete(store)


def test_a_table_that_failed_is_named_and_the_others_are_complete(store: Store) -> None:
    class Failing(Work):
        def make(self, table: ChunkedTable, chunk: int) -> None:
            super().make(table, chunk)
            if (table, chunk) == (TABLES[0], 2):
                store.delete(table.chunk_file(chunk))
                table.write_failure(store, chunk, "chunk 2: no gradient")

        def __call__(self, missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
            return (made for made in super().__call__(missing, patience) if made != (TABLES[0].folder, 2, 1))

    with pytest.raises(RunFailed, match=r"1 tables failed; .*\n  clean/a: chunk 2: no gradient"):
        filled(store, Failing(store))
    assert TABLES[1].is_finished(store.listing())
    assert filled(store, Work(store)) == 1
    assert_complete(store)
