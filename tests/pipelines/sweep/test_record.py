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


def test_the_last_look_is_empty_before_the_first():
    assert Record({}, "running", [], []).last == {}


def test_a_record_is_read_as_it_was_written(tmp_path):
    store = Store(str(tmp_path / "runs"), "digits")
    record = trial(
        5.0, settings={"witnesses": ["wide"], "align.clip_grad_norm": None}, seconds=3.25, reason="ü", lost=True,
        curve=[{"step": 0, "loss": 1.5}],
    )  # fmt: skip
    place = record_path("sweeps/mine", "0123456789abcdef")
    assert read_record(store, place) is None
    write_record(store, place, record)
    assert read_record(store, place) == record
