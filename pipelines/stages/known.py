"""What was found out about an input when it was tried, kept in the store, so that it is not tried again."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.storage.store import Store

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Found = TypeVar("Found", bound="DataclassInstance")


class Known:
    """A JSON file in the store, which keeps by key what was found out before. A damaged entry is found out anew."""

    def __init__(self, store: Store, path: str) -> None:
        self._path = path
        known = store.read_json(path)
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}
        self._has_changed = False

    def get(self, key: str, kind: type[Found], find_out: Callable[[], Found]) -> Found:
        """What is known under the key, or else what `find_out` returns, a dataclass, which is then kept."""
        try:
            return kind(**self._known[key])
        except (KeyError, TypeError, ValueError):
            found = find_out()
            self._known[key] = asdict(found)
            self._has_changed = True
            return found

    def forget(self, key: str) -> None:
        """Lets what is known under the key be found out anew."""
        self._known.pop(key, None)

    def unsaved(self) -> dict[str, bytes]:
        """The file by its path, if anything was added to it."""
        return {self._path: json.dumps(self._known).encode()} if self._has_changed else {}
