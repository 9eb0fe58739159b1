"""`fill` completes its tables whatever happens to the work: it requests only missing chunks, and repeats on failure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest

from pipelines.compute.fill import Missing, fill
from pipelines.compute.ray_data import PipelineBroke
from pipelines.failure import RunFailed
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.joint_table import JointFolder, JointTable
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


@pytest.mark.parametrize("damage", [b"", pytest.param(None, marks=pytest.mark.slow)])
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


BROKEN = "chunk 1: the logits of b are not finite for 1/0"


class JointWork:
    """Makes the chunks of a group of tables, of which `b` fails for good on chunk 1; records what was requested."""

    def __init__(self, store: Store, tables: JointTable) -> None:
        self.store, self.tables = store, tables
        self.asked: list[dict[int, tuple[int, ...]]] = []

    def __call__(self, missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
        lacking = cast("Mapping[str, Mapping[int, tuple[int, ...]]]", missing)[self.tables.folder]
        self.asked.append(dict(lacking))
        for chunk, positions in lacking.items():
            rows = pa.table({"image_id": [f"{chunk}/{row}" for row in range(ROWS[chunk])], "label": [0] * ROWS[chunk]})
            made = {position: rows for position in positions if (position, chunk) != (1, 1)}
            if len(made) < len(positions):
                TABLES[1].write_failure(self.store, chunk, BROKEN, final=True)
            if made:
                self.tables.write_chunk(self.store, chunk, made)
            yield self.tables.folder, chunk, len(made)


def test_what_would_fail_again_is_left_and_the_other_tables_of_its_group_are_finished(store: Store) -> None:
    tables = JointTable(JointFolder(".evaluate/clean", (tuple(TABLES),), parent="clean"), 0, ("image_id",))
    work, messages = JointWork(store, tables), list[str]()
    assert fill(store, [tables], ROWS, messages.append, work, patience=5) == 5
    assert work.asked == [{0: (0, 1), 1: (0, 1), 2: (0, 1)}]
    assert messages == [f"clean/b: {BROKEN}; all other tables are made"]
    assert tables.unfinished(store.listing()) == ["clean/b"]
    assert TABLES[1].final_failure(store, store.listing()) == BROKEN
    # Another run tries it once more, that chunk alone; whatever of the table is there is kept for it.
    assert fill(store, [tables], ROWS, messages.append, work, patience=5) == 0
    assert work.asked[1:] == [{1: (1,)}]


def test_a_single_table_that_would_fail_again_is_left(store: Store) -> None:
    class Failing(Work):
        def __call__(self, missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
            for folder, chunk, count in super().__call__(missing, patience):
                if (folder, chunk) == (TABLES[1].folder, 1):
                    self.store.delete(TABLES[1].chunk_file(chunk))
                    TABLES[1].write_failure(self.store, chunk, BROKEN, final=True)
                else:
                    yield folder, chunk, count

    work, messages = Failing(store), list[str]()
    assert filled(store, work, messages) == 5
    assert len(work.asked) == 1
    assert messages == [f"clean/b: {BROKEN}; all other tables are made"]
    assert TABLES[0].is_finished(store.listing())
    assert TABLES[1].unfinished(store.listing()) == ["clean/b"]
