"""A file with a checksum is believed as long as nobody edited it."""

from pathlib import Path

import pytest

from pipelines.storage.sealed import read_sealed, write_sealed
from pipelines.storage.store import Store

CONTENT = {"gain": 5.25, "rates": {"b": 1.0, "a": None}, "steps": [1, 2], "name": "é"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path), "x")
    write_sealed(store, "a.json", CONTENT)
    return store


def test_it_comes_back_as_it_was(store: Store) -> None:
    assert read_sealed(store, "a.json") == CONTENT
    assert read_sealed(store, "gone.json") is None


def test_an_edited_value_is_not_believed(store: Store) -> None:
    store.write("a.json", store.read("a.json").replace(b"5.25", b"99.0"))
    assert read_sealed(store, "a.json") is None


def test_layout_is_no_edit_and_an_earlier_file_has_no_checksum(store: Store) -> None:
    store.write("a.json", store.read("a.json").replace(b"\n", b"\n\n"))
    assert read_sealed(store, "a.json") == CONTENT
    store.write_json("a.json", CONTENT)
    assert read_sealed(store, "a.json") == CONTENT
