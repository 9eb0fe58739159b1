"""JSON files with a checksum over their content, for figures that nothing else in the store could confirm."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipelines.storage.store import Store

_SEAL = "sha256"


def write_sealed(store: Store, path: str, content: Mapping[str, Any]) -> None:
    """Writes an object as JSON, with its checksum."""
    store.write_json(path, {**content, _SEAL: _checksum(content)})


def read_sealed(store: Store, path: str) -> dict[str, Any] | None:
    """The object in such a file; None where the file is missing, damaged, or was edited.

    Files of earlier versions have no checksum, and are believed.
    """
    content = store.read_json(path)
    if content is None:
        return None
    seal = content.pop(_SEAL, None)
    return content if seal in (None, _checksum(content)) else None


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
