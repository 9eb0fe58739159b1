"""A training that is interrupted while it writes a checkpoint."""

from collections.abc import Callable
from typing import Any

import pytest

from pipelines.storage.store import Store


def interrupted(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any], at: int) -> None:
    """Does the work until it writes the state of a checkpoint for the time `at`, which fails as a kill would."""
    write, left = Store.write, [at]

    def breaking(store: Store, relative: str, content: bytes) -> None:
        left[0] -= relative.endswith("state.safetensors")
        if left[0] == 0:
            raise InterruptedError
        write(store, relative, content)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", breaking)
        with pytest.raises(InterruptedError):
            work()
