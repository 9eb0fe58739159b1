"""The history of a schedule: a file that is damaged, or of another program, counts as if there were none."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.schedule.history import History, Job, Run
from pipelines.storage.store import Store

MINUTE = "2026-11-24T0300Z"
GOOD = Run("nightly", MINUTE, MINUTE, "succeeded", [Job("a", "succeeded")], [])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path), "schedule")
    History(store).save(GOOD)
    return store


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"entry": ', b"\0\xff", b"[" * 100_000])
def test_a_damaged_file_is_skipped(store: Store, content: bytes) -> None:
    store.write("nightly/2026-11-25T0300Z.json", content)
    assert list(History(store).runs("nightly")) == [GOOD]


@pytest.mark.parametrize(
    "changes",
    [{"entry": None}, {"minute": 3}, {"minute": "2026-11-26T0300Z"}, {"status": "odd"}, {"jobs": None}, {"jobs": [3]},
     {"jobs": [{}]}, {"changes": [1]}, {"table": "x"}, {"covered": None}, {"more": 1}],
)  # fmt: skip
def test_a_file_with_values_of_other_types_is_skipped(store: Store, changes: dict[str, Any]) -> None:
    content = store.read_json(f"nightly/{MINUTE}.json")
    assert content is not None
    minute = "2026-11-25T0300Z"
    store.write_json(f"nightly/{minute}.json", {**content, "minute": minute, "covered": minute, **changes})
    assert list(History(store).runs("nightly")) == [GOOD]


def test_files_of_other_programs_are_no_runs_and_are_never_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.schedule.history._RUNS_KEPT", 1)
    for name in ("notes.json", "1.json", ".json", ".DS_Store", "2026.json"):
        store.write(f"nightly/{name}", b"{}")
    History(store).delete_old(GOOD)
    assert len(store.listing("nightly")["nightly"]) == 6
    assert History(store).latest("nightly") == GOOD
