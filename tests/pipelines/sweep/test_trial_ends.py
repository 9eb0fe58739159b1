"""Trials that Ray Tune counts as over: only those that ended by themselves, failed or were stopped by ASHA are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweeping import trial

from pipelines.storage.store import Store
from pipelines.sweep.command import _record_ends
from pipelines.sweep.ray_tune import TrialEnd, _end_of
from pipelines.sweep.record import read_record, record_path, write_record
from pipelines.sweep.trial import stop_note

SETTINGS = {"align.temperature": 4.0}


@pytest.mark.parametrize(
    ("status", "error", "is_stopped", "after", "is_final"),
    [
        ("running", "", False, "running", False),  # a signal ended the sweep, and Tune takes it for over
        ("running", "", True, "stopped", True),
        ("running", "node died", False, "failed", False),
        ("done", "", False, "done", True),
        ("done", "", True, "done", True),
        ("failed", "", False, "failed", True),
    ],
)
def test_a_trial_is_over_only_where_its_record_or_the_scheduler_says_so(
    tmp_path: Path, status: str, error: str, is_stopped: bool, after: str, is_final: bool
) -> None:
    store, path = Store(str(tmp_path), "digits"), record_path("sweeps/mine", "f")
    write_record(store, path, trial(5.0, status=status, settings=SETTINGS))
    study: Any = SimpleNamespace(blueprint=SimpleNamespace(store=store), folder="sweeps/mine")
    sweep: Any = SimpleNamespace(fingerprint=lambda settings: "f")
    lost = _record_ends(study, sweep, [TrialEnd(SETTINGS, error, is_stopped)])
    record = read_record(store, path)
    assert record is not None
    assert (record.status, record.is_final, lost) == (after, is_final, bool(error) and status == "running")


def test_the_schedulers_note_is_read_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "digits")
    store.write_json(stop_note("t1"), {"gain": 1.0})
    stopped: Any = SimpleNamespace(metrics={"trial_id": "t1"}, config={"settings": SETTINGS}, error=None)
    never_measured: Any = SimpleNamespace(metrics=None, config={"settings": SETTINGS}, error=ValueError("no"))
    assert _end_of(stopped, store) == TrialEnd(SETTINGS, "", True)
    assert _end_of(stopped, store) == TrialEnd(SETTINGS, "", False)
    assert _end_of(never_measured, store).error.endswith("no")
