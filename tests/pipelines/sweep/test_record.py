"""The record of a trial: when the trial counts as over, and that a record is read as it was written."""

import pytest
from sweeping import trial

from pipelines.storage.store import Store
from pipelines.sweep.record import Record, read_record, record_path, write_record


@pytest.mark.parametrize(
    ("how", "is_final"),
    [
        ({"status": "done"}, True),
        ({"status": "stopped"}, True),
        ({"status": "failed"}, True),
        ({"status": "failed", "lost": True}, False),
        ({"status": "running"}, False),
    ],
)
def test_it_is_over_unless_it_runs_or_was_lost(how, is_final):
    assert trial(**how).is_final is is_final


def test_the_last_measurement_is_empty_before_the_first():
    assert Record({}, "running", [], []).last == {}


def test_a_record_is_read_as_it_was_written(tmp_path):
    store = Store(str(tmp_path / "runs"), "digits")
    record = trial(
        5.0, settings={"witnesses": ["wide"], "align.clip_grad_norm": None}, seconds=3.25, reason="ü", lost=True,
        curve=[{"step": 0, "loss": 1.5}],
    )  # fmt: skip
    path = record_path("sweeps/mine", "0123456789abcdef")
    assert read_record(store, path) is None
    write_record(store, path, record)
    assert read_record(store, path) == record


STORED = {
    "settings": {"align.temperature": 4.0}, "status": "done", "curve": [], "seconds": 2.5, "reason": "", "lost": False,
    "looks": [{"n": 200, "gain": 5.0, "gain_low": 3.5, "gain_high": 7.0, "clean_accuracy": 90.0, "clean_change": 0.0,
               "rates": {"cnn_d": 35.0}, "step": 8, "timestamp": 1e9, "seconds": 2.0}],
}  # fmt: skip


def test_a_record_is_stored_under_the_keys_that_earlier_versions_wrote(tmp_path):
    store = Store(str(tmp_path / "runs"), "digits")
    write_record(store, "record.json", trial(5.0, seconds=2.5))
    stored = store.read_json("record.json")
    assert len(stored.pop("sha256")) == 64
    assert stored == STORED


def test_a_record_whose_figures_were_edited_is_no_record(tmp_path):
    store = Store(str(tmp_path / "runs"), "digits")
    write_record(store, "record.json", trial(5.0))
    store.write("record.json", store.read("record.json").replace(b'"gain": 5.0', b'"gain": 99.0'))
    assert b"99.0" in store.read("record.json")
    assert read_record(store, "record.json") is None


@pytest.mark.parametrize("key", STORED)
def test_a_record_that_lacks_a_key_is_no_record(tmp_path, key):
    store = Store(str(tmp_path / "runs"), "digits")
    store.write_json("record.json", {name: value for name, value in STORED.items() if name != key})
    assert read_record(store, "record.json") is None
    store.write_json("record.json", STORED | {"other": 1})
    assert read_record(store, "record.json") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": None}, {"settings": []}, {"status": 3}, {"looks": {}}, {"looks": [None]}, {"looks": [{}]},
        {"looks": []}, {"curve": None}, {"lost": "no"}, {"seconds": "2.5"},
        {"looks": [STORED["looks"][0] | {"gain": None}]},
    ],
)  # fmt: skip
def test_a_record_whose_values_are_of_another_type_is_no_record(tmp_path, changes):
    store = Store(str(tmp_path / "runs"), "digits")
    store.write_json("record.json", STORED)
    assert read_record(store, "record.json") is not None
    store.write_json("record.json", STORED | changes)
    assert read_record(store, "record.json") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"settings": ', b"\xff\0", b"[" * 100_000])
def test_a_damaged_record_is_no_record(tmp_path, content):
    store = Store(str(tmp_path / "runs"), "digits")
    store.write("record.json", content)
    assert read_record(store, "record.json") is None
