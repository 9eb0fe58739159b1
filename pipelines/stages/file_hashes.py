"""Hashes of the bytes of weights files, kept in the store by path, size and modification time.

Whoever trusts these takes a file of unchanged size and time for unchanged; whoever does not reads it again. The bytes
of a file are hashed at the speed of a disk, while the hash of its tensors needs torch and the whole network. Of a file
in an object store, size and time are what the store says.
"""

import hashlib
import json
from pathlib import Path

from align_core.errors import InputError
from pipelines.stages.manifest_file import size_and_time
from pipelines.stages.seen import SEEN
from pipelines.storage.cache import Watch, unwatched
from pipelines.storage.credentials import without_credentials
from pipelines.storage.far import facts, fetched
from pipelines.storage.store import Store

_KEPT = f"{SEEN}/files.json"


class FileHashes:
    """The hashes of weights files, each read at most once.

    Args:
        store: where the hashes are kept.
        trusting: whether a file of unchanged path, size and time is not read again.
    """

    def __init__(self, store: Store, trusting: bool) -> None:
        self._store, self._trusting = store, trusting
        self._kept = store.read_json(_KEPT) or {}
        self._found: dict[str, list[object]] = {}
        self._far: dict[str, str] = {}

    def of_file(self, file: Path) -> str | None:
        """The hash of a file outside the store; None where there is none. Raises OSError."""
        if not file.is_file():
            return None
        path, state = str(file), size_and_time(file)
        if path not in self._found:
            digest = self._known(path, state) if self._trusting else None
            if digest is None:
                with open(file, "rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._found[path] = [*state, digest]
        return str(self._found[path][2])

    def of_far(self, uri: str, watch: Watch = unwatched) -> str:
        """The hash of a file in an object store, which is fetched unless it is known. Raises InputError."""
        if uri not in self._far:
            found = facts(uri)
            if len(found) != 1:
                raise InputError(f"{without_credentials(uri)}: this is a folder of {len(found):,} files; name one")
            name, size, time = found[0]
            digest = self._known(name, (size, time)) if self._trusting else None
            if digest is None:
                with open(fetched(uri, watch), "rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._far[uri], self._found[name] = digest, [size, time, digest]
        return self._far[uri]

    def of_stored(self, relative: str, content: bytes | None) -> tuple[str, bool]:
        """The hash of a file in the store, or of `content`, which will be written there; and whether it is as it was.

        A file in the store has no time of its own, so its path alone is trusted.
        """
        known = self._known(relative, (0, 0))
        if content is not None:
            digest = hashlib.sha256(content).hexdigest()
        else:
            digest = known if known and self._trusting else self._store.sha256(relative)
        self._found[relative] = [0, 0, digest]
        return digest, known in (None, digest)

    def unsaved(self) -> dict[str, bytes]:
        """What has still to be written to the store, by path."""
        if all(self._kept.get(path) == found for path, found in self._found.items()):
            return {}
        return {_KEPT: json.dumps({**self._kept, **self._found}).encode()}

    def _known(self, path: str, state: tuple[int, int]) -> str | None:
        """The hash that is kept, where it is of a file of this size and time."""
        match self._kept.get(path):
            case [int(size), int(time), str(digest)] if (size, time) == state:
                return digest
        return None
