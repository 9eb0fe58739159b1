"""What is done while a sweep runs: each look takes up only what changed since the last one."""

from collections.abc import Mapping
from typing import Any

import pytest
from sweeping import trial

import pipelines.sweep.watch
from pipelines.progress import Bar, Progress
from pipelines.storage.store import Store
from pipelines.sweep.record import Record, RecordReader, record_path, write_record
from pipelines.sweep.watch import Watch

FOLDER = "sweeps/mine"


class Counting(Store):
    """A store that notes which records were read."""

    def __init__(self, output: str) -> None:
        super().__init__(output, "digits")
        self.files: list[str] = []

    def read_json(self, relative: str) -> dict[str, Any] | None:
        self.files.append(relative.rpartition("/")[2].removesuffix(".json"))
        return super().read_json(relative)

    def taken(self) -> list[str]:
        taken, self.files = self.files, []
        return taken


@pytest.fixture
def store(tmp_path) -> Counting:
    return Counting(str(tmp_path))


def write(store: Store, fingerprint: str, record: Record) -> Record:
    write_record(store, record_path(FOLDER, fingerprint), record)
    return record


def test_only_records_that_changed_are_read_again(store):
    reader = RecordReader(store, FOLDER, lambda fingerprint, record: fingerprint != "foreign")
    assert reader.read() == {}
    records = {name: write(store, name, trial(gain)) for gain, name in enumerate(("b", "a"))}
    write(store, "foreign", trial())
    assert reader.read() == records
    assert list(reader.read()) == ["a", "b"]
    assert store.taken() == ["a", "b", "foreign"]
    records["b"] = write(store, "b", trial(7.5, status="stopped"))
    records["c"] = write(store, "c", trial(3.0))
    assert reader.read() == records
    assert store.taken() == ["b", "c"]
    store.delete(record_path(FOLDER, "a"))
    del records["a"]
    assert reader.read() == records
    assert store.taken() == []


def test_a_record_that_was_damaged_and_is_whole_again_counts_again(store):
    reader = RecordReader(store, FOLDER, lambda fingerprint, record: True)
    write(store, "a", trial())
    store.write(record_path(FOLDER, "a"), b"{")
    assert reader.read() == {}
    whole = write(store, "a", trial())
    assert reader.read() == {"a": whole}


class Small:
    """The parts of a study that a watch looks at."""

    def __init__(self, store: Store) -> None:
        self.blueprint = self.entry = self.space = None
        self.fingerprint = "0" * 16
        self.options = type("Options", (), {"max_clean_drop": 1.0})
        self._store = store

    def reader(self) -> RecordReader:
        return RecordReader(self._store, FOLDER, lambda fingerprint, record: True)


def test_a_trial_that_ended_is_logged_once_and_again_only_where_the_server_was_down(store, monkeypatch):
    sent: list[list[str]] = []
    is_up = True

    def log(blueprint: Any, entry: Any, space: Any, records: Mapping[str, Record], fingerprint: str) -> bool:
        sent.append(list(records))
        return is_up

    monkeypatch.setattr(pipelines.sweep.watch, "log_sweep", log)
    bar = Bar(Progress(quiet=True), "sweep", 4, "trials")
    watch = Watch(Small(store), bar)  # type: ignore[arg-type]
    watch.look()
    write(store, "a", trial(status="running"))
    watch.look()
    assert sent == [] and bar.done == 0
    write(store, "a", trial(2.0))
    watch.look()
    watch.look()
    assert sent == [["a"]] and bar.done == 1 and bar.note == "best so far +2.0 points"
    is_up = False
    write(store, "b", trial(5.0))
    watch.look()
    is_up = True
    watch.look()
    write(store, "c", trial(1.0))
    watch.look()
    assert sent == [["a"], ["b"], ["b", "c"]] and bar.done == 3 and bar.note == "best so far +5.0 points"
