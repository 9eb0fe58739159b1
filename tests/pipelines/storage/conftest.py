"""Stores of both kinds for the tests of tables."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.storage.store import Store


@pytest.fixture(params=["disk", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on a disk, and one in an object store that lies in memory."""
    if request.param == "disk":
        yield Store(str(tmp_path), "tiny")
        return
    memory = Store(f"fsspec+memory://{tmp_path.name}", "tiny")
    yield memory
    memory.delete_folder("")
