"""Tables that are made together: what is missing is known whatever changes, and they end as if made one by one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.storage.chunked_table import ChunkedTable, Failure
from pipelines.storage.joint_table import JointFolder, JointTable
from pipelines.storage.store import Store

ROWS = [3, 3, 2]
FOLDER = ".evaluate/adversarial/s/pgd"
SHARED = ("image_id", "label")


def table(name: str, seed: int = 0) -> ChunkedTable:
    return ChunkedTable(f"outcomes/s/pgd/{name}", {"name": name, "seed": seed})


A, B, C, D = map(table, "ABCD")
ALL = (A, B, C)


def joint(*groups: Sequence[ChunkedTable], group: int = 0) -> JointTable:
    return JointTable(JointFolder(FOLDER, tuple(map(tuple, groups)), "outcomes/s/pgd"), group, SHARED)


def rows_of(table: ChunkedTable, chunk: int) -> pa.Table:
    """What a network predicts on one chunk; it differs from table to table."""
    ids = np.arange(ROWS[chunk]) + sum(ROWS[:chunk])
    seed = int(table.fingerprint, 16) % 1000
    return pa.table(
        {
            "image_id": [f"{number:05d}" for number in ids],
            "label": ids % 10,
            "adversarial_prediction": (ids + seed) % 10,
            "adversarial_confidence": ((ids + seed) / 2000).astype(np.float32),
        }
    )


def make(store: Store, tables: JointTable, chunks: Sequence[int] = (0, 1, 2), fails: Sequence[str] = ()) -> None:
    """Makes what is missing of these chunks, as an evaluator does."""
    for chunk, lacking in tables.missing(store, store.listing(), len(ROWS)).items():
        if chunk in chunks:
            found = {}
            for position in lacking:
                own = tables.tables[position]
                if own.folder[-1] in fails:
                    own.write_failure(store, chunk, f"chunk {chunk}: no logits")
                else:
                    found[position] = rows_of(own, chunk)
            tables.write_chunk(store, chunk, found)


def missing(store: Store, tables: JointTable) -> dict[int, str]:
    """Which tables lack each chunk, by the last letters of their names."""
    found = tables.missing(store, store.listing(), len(ROWS))
    return {chunk: "".join(tables.tables[p].folder[-1] for p in positions) for chunk, positions in found.items()}


def under_way(store: Store) -> list[str]:
    return sorted(store.listing(FOLDER).get(FOLDER, []))


def assert_finished(store: Store, *tables: ChunkedTable) -> None:
    for own in tables:
        assert store.listing(own.folder)[own.folder] == [f"{own.fingerprint}.parquet"]
        expected = pa.concat_tables([rows_of(own, chunk) for chunk in range(len(ROWS))])
        assert own.read(store, expected.column_names).equals(expected)
        assert [own.read_chunk(store, chunk, size).num_rows for chunk, size in enumerate(ROWS)] == ROWS
        assert own.about(store)["inputs"] == own.inputs


def test_the_finished_files_are_the_same_bytes_as_of_tables_made_one_by_one(store: Store, tmp_path: Path) -> None:
    make(store, joint(ALL))
    assert len(under_way(store)) == len(ROWS)
    assert joint(ALL).finish(store, ROWS) == []
    assert_finished(store, *ALL)
    assert under_way(store) == []
    alone = Store(str(tmp_path), "alone")
    for own in ALL:
        for chunk in range(len(ROWS)):
            own.write_chunk(alone, chunk, rows_of(own, chunk))
        assert own.finish(alone, ROWS) == []
        assert store.read(own.finished_file) == alone.read(own.finished_file)


def test_what_is_missing_follows_from_the_files_that_are_there(store: Store) -> None:
    assert missing(store, joint(ALL)) == {0: "ABC", 1: "ABC", 2: "ABC"}
    make(store, joint(ALL), [1])
    assert missing(store, joint(ALL)) == {0: "ABC", 2: "ABC"}
    assert joint(ALL).within.done_chunks(store, store.listing()) == {own.folder: {1} for own in ALL}
    make(store, joint(ALL))
    assert missing(store, joint(ALL)) == {}
    joint(ALL).finish(store, ROWS)
    assert missing(store, joint(ALL)) == {}
    assert joint(ALL).is_finished(store.listing())


def test_a_table_that_is_added_lacks_only_its_own_chunks(store: Store) -> None:
    make(store, joint(ALL), [0, 1])
    more = joint((*ALL, D))
    assert missing(store, more) == {0: "D", 1: "D", 2: "ABCD"}
    make(store, more)
    assert more.finish(store, ROWS) == []
    assert_finished(store, *ALL, D)
    assert under_way(store) == []


def test_a_table_that_is_added_to_finished_ones_lacks_only_its_own_chunks(store: Store) -> None:
    make(store, joint(ALL))
    joint(ALL).finish(store, ROWS)
    more = joint((D, *ALL))
    assert missing(store, more) == {0: "D", 1: "D", 2: "D"}
    make(store, more)
    assert more.finish(store, ROWS) == []
    assert_finished(store, *ALL, D)


def test_a_table_whose_inputs_changed_is_made_anew_and_the_others_are_kept(store: Store) -> None:
    make(store, joint(ALL), [0, 1])
    other = table("B", seed=1)
    changed = joint((A, other, C))
    assert missing(store, changed) == {0: "B", 1: "B", 2: "ABC"}
    changed.set_aside_others(store, store.listing(), lambda line: pytest.fail(line))
    make(store, changed)
    assert changed.finish(store, ROWS) == []
    assert_finished(store, A, other, C)
    assert under_way(store) == []


def test_a_table_that_is_no_longer_wanted_keeps_no_file(store: Store) -> None:
    make(store, joint(ALL), [0, 1])
    fewer = joint((A, B))
    assert missing(store, fewer) == {2: "AB"}
    make(store, fewer)
    assert fewer.finish(store, ROWS) == []
    assert_finished(store, A, B)
    assert under_way(store) == []


def test_joint_files_of_other_settings_are_moved_and_reported_once(store: Store) -> None:
    make(store, joint(ALL), [0, 1])
    others = [table(name, seed=1) for name in "ABC"]
    messages: list[str] = []
    for group in (0, 1):
        joint(others[:2], others[2:], group=group).set_aside_others(store, store.listing(), messages.append)
    (line,) = messages
    assert line.startswith(f"{FOLDER}: made with other settings, models or targets; moved to .stale/")
    assert under_way(store) == []
    stale = line.partition("moved to ")[2]
    assert len(store.listing(stale)[stale]) == 2


def test_a_table_that_fails_does_not_lose_the_others(store: Store) -> None:
    tables = joint(ALL)
    make(store, tables, [0])
    make(store, tables, [1], fails="B")
    make(store, tables, [2])
    assert tables.failures(store, store.listing()) == {B.folder: Failure("chunk 1: no logits", is_final=False)}
    assert tables.unfinished(store.listing()) == [A.folder, B.folder, C.folder]
    assert tables.finish(store, ROWS) == []
    assert_finished(store, A, C)
    assert not tables.is_finished(store.listing())
    tables.forget_failure(store, store.listing())
    assert missing(store, tables) == {1: "B"}
    make(store, tables)
    assert tables.finish(store, ROWS) == []
    assert_finished(store, *ALL)
    assert under_way(store) == []


def test_chunks_in_files_of_their_own_count_and_are_joined(store: Store) -> None:
    """As runs of earlier versions left them, and as tables that are made alone leave them."""
    for own, chunks in ((A, (0, 1, 2)), (B, (1,))):
        for chunk in chunks:
            own.write_chunk(store, chunk, rows_of(own, chunk))
    assert missing(store, joint(ALL)) == {0: "BC", 1: "C", 2: "BC"}
    make(store, joint(ALL))
    assert joint(ALL).finish(store, ROWS) == []
    assert_finished(store, *ALL)
    assert under_way(store) == []


def damage(store: Store, how: str, file: str) -> None:
    if how == "missing":
        store.delete(file)
    else:
        content = store.read(file)
        store.write(
            file, {"empty": b"", "truncated": content[:-20], "flipped": content[:40] + b"!!" + content[42:]}[how]
        )


@pytest.mark.parametrize("how", ["truncated", "empty", "missing", "flipped"])
def test_a_damaged_file_is_found_and_its_chunk_made_again(store: Store, how: str) -> None:
    make(store, joint(ALL))
    damage(store, how, f"{FOLDER}/{under_way(store)[1]}")
    assert joint(ALL).finish(store, ROWS) == [1]
    assert missing(store, joint(ALL)) == {1: "ABC"}
    assert not any(own.is_finished(store.listing()) for own in ALL)
    make(store, joint(ALL))
    assert joint(ALL).finish(store, ROWS) == []
    assert_finished(store, *ALL)


def test_a_file_with_too_few_rows_is_damaged(store: Store) -> None:
    make(store, joint(ALL))
    joint(ALL).write_chunk(store, 0, {number: rows_of(own, 0).slice(1) for number, own in enumerate(ALL)})
    assert joint(ALL).finish(store, ROWS) == [0]
    assert missing(store, joint(ALL)) == {0: "ABC"}


def test_files_that_cannot_say_what_they_hold_are_moved_away(store: Store) -> None:
    store.write(f"{FOLDER}/0123456789abcdef-chunk-000001.parquet", b"no parquet")
    store.write(f"{FOLDER}/notes.txt", b"a stray file")
    store.write(f"{FOLDER}/0123456789abcdef-chunk-x.parquet", b"a stray name")
    assert missing(store, joint(ALL)) == {0: "ABC", 1: "ABC", 2: "ABC"}
    messages: list[str] = []
    joint(ALL).set_aside_others(store, store.listing(), messages.append)
    assert len(messages) == 1
    assert under_way(store) == ["0123456789abcdef-chunk-x.parquet", "notes.txt"]


def test_one_damaged_file_does_not_hide_what_the_others_hold(store: Store) -> None:
    make(store, joint(ALL), [0, 1])
    damage(store, "empty", f"{FOLDER}/{under_way(store)[0]}")
    more = joint((*ALL, D))  # so that the names are not those of tables that are made together now
    assert missing(store, more) == {0: "D", 1: "D", 2: "ABCD"}
    make(store, more)
    assert more.finish(store, ROWS) == [0]
    make(store, more)
    assert more.finish(store, ROWS) == []
    assert_finished(store, *ALL, D)


def test_an_interrupted_join_goes_on_where_it_stopped(store: Store) -> None:
    """A run that is killed may have written some tables, or all, and deleted some of the files, or none."""
    make(store, joint(ALL))
    files = {name: store.read(f"{FOLDER}/{name}") for name in under_way(store)}
    joint(ALL).finish(store, ROWS)
    for name, content in files.items():
        store.write(f"{FOLDER}/{name}", content)
    store.delete(B.finished_file)
    assert missing(store, joint(ALL)) == {}
    assert joint(ALL).within.leftovers(store, store.listing()) == []
    assert joint(ALL).finish(store, ROWS) == []
    assert_finished(store, *ALL)
    store.write(f"{FOLDER}/{name}", content)
    assert joint(ALL).within.leftovers(store, store.listing()) == [f"{FOLDER}/{name}"]
    joint(ALL).delete_leftovers(store, store.listing())
    assert under_way(store) == []


def test_files_that_two_groups_share_stay_until_both_are_finished(store: Store) -> None:
    """As where a worker holds fewer networks than in the run before."""
    make(store, joint((*ALL, D)))
    first, second = (joint((A, B), (C, D), group=group) for group in (0, 1))
    assert missing(store, first) == missing(store, second) == {}
    assert first.finish(store, ROWS) == []
    assert_finished(store, A, B)
    assert len(under_way(store)) == len(ROWS)
    assert second.finish(store, ROWS) == []
    assert_finished(store, *ALL, D)
    assert under_way(store) == []


class Counting(Store):
    """A store that counts what it is asked to do with single files."""

    def __init__(self, output: str) -> None:
        super().__init__(output, "tiny")
        self.written, self.opened = list[str](), list[str]()

    @contextmanager
    def writing(self, relative: str) -> Iterator[pa.NativeFile]:
        self.written.append(relative)
        with super().writing(relative) as stream:
            yield stream

    def open_input(self, relative: str) -> pa.NativeFile:
        self.opened.append(relative)
        return super().open_input(relative)

    def __reduce__(self) -> Any:
        raise AssertionError("it counts in this process alone")


@pytest.fixture
def counting(tmp_path: Path) -> Callable[[], Counting]:
    return lambda: Counting(str(tmp_path))


def test_each_chunk_is_one_file_which_is_read_once_however_many_tables_there_are(
    counting: Callable[[], Counting],
) -> None:
    store, many = counting(), tuple(table(f"{number:02d}") for number in range(20))
    make(store, joint(many))
    assert len(store.written) == len(ROWS) and store.opened == []
    assert joint(many).finish(store, ROWS) == []
    assert len(store.opened) == len(ROWS)
    assert len(store.written) == len(ROWS) + len(many)
    assert_finished(store, *many)
