"""How long the crafting of each table took: kept beside the results, since it cannot be computed again from them."""

import math
import time
from typing import NamedTuple

from pipelines.storage.store import Store

FILE = "times.json"
"""Relative to the experiment's folder."""

_SAVED_EVERY = 60.0  # seconds, for a long run may be killed


class Spent(NamedTuple):
    """What the workers of one kind spent on a table: a number of images, and the sum of all workers' seconds."""

    worker: str
    images: int
    seconds: float


class CraftingTimes:
    """Adds up the seconds of crafting, by table and kind of worker. Starting workers and loading networks is left out.

    Args:
        store: of the experiment. What is kept there is added to.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = {fingerprint: dict(_sound(kinds)) for fingerprint, kinds in (store.read_json(FILE) or {}).items()}
        self._saved = time.monotonic()
        self._is_new = False

    def note(self, fingerprint: str, worker: str, images: int, seconds: float) -> None:
        """Records that a worker of this kind, such as "cpu, 1 thread", crafted some images of a table."""
        kinds = self._kept.setdefault(fingerprint, {})
        before = kinds.get(worker, (0, 0.0))
        kinds[worker] = (before[0] + images, before[1] + seconds)
        self._is_new = True
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def of(self, fingerprint: str) -> list[Spent]:
        """What is known of a table, by kind of worker; nothing where it was made elsewhere."""
        return [Spent(worker, *spent) for worker, spent in self._kept.get(fingerprint, {}).items()]

    def save(self) -> None:
        """Writes what was recorded to the store."""
        self._saved = time.monotonic()
        if self._is_new:
            self._store.write_json(FILE, self._kept)
            self._is_new = False


def _sound(kinds: object) -> list[tuple[str, tuple[int, float]]]:
    """The entries of a table that are as they were written; what somebody edited is left out."""
    if not isinstance(kinds, dict):
        return []
    found = []
    for worker, spent in kinds.items():
        match spent:
            case [int(images), float(seconds)] if images > 0 and 0 < seconds < math.inf:
                found.append((str(worker), (images, seconds)))
    return found
