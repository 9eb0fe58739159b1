"""How long the work takes: seconds of one worker, measured while it is done and kept for the next forecast."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pipelines.stages.blueprint import Blueprint
from pipelines.stages.seen import SEEN
from pipelines.storage.store import fingerprint_of

_FILE = f"{SEEN}/rates.json"
_SAVED_EVERY = 60.0  # seconds, for a long run may be killed
Kind = Literal["gradient", "prediction", "training", "reasons", "comparison"]


class Speeds:
    """Seconds of one worker per image and gradient, prediction or training step, by architectures and hardware.

    The latest measurement counts.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        stored = blueprint.store.read_json(_FILE) or {}
        self._known = {key: speed for key, speed in stored.items() if isinstance(speed, float) and 0 < speed < math.inf}
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._saved = time.monotonic()

    def note(self, kind: Kind, members: Sequence[str], device: str, count: float, seconds: float) -> None:
        """Records that `count` gradients or predictions by the mean of `members` took this many seconds.

        Or that `count` images did, on which its reasons were measured, or surrogates were compared with it.

        For training, `members` are the network that is trained and its witnesses, and `count` is the number of images
        times that of passes.
        """
        spent = self._spent[self._key(kind, members, device)]
        spent[0] += count
        spent[1] += seconds
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def seconds(self, kind: Kind, members: Sequence[str]) -> float | None:
        """Seconds of one gradient, prediction, or pass in training, for one image.

        That is on a GPU where it was measured there, else on a CPU; None where it was never measured.
        """
        found = (self._known.get(self._key(kind, members, device)) for device in ("cuda", "cpu"))
        return next((seconds for seconds in found if seconds is not None), None)

    def save(self) -> None:
        """Writes what was recorded to the store."""
        self._saved = time.monotonic()
        new = {key: seconds / count for key, (count, seconds) in self._spent.items() if count}
        if new:
            self._known |= new
            self._blueprint.store.write_json(_FILE, self._known)

    def _key(self, kind: Kind, members: Sequence[str], device: str) -> str:
        blueprint, compute = self._blueprint, self._blueprint.experiment.compute
        architectures = [blueprint.networks[name].config.architecture for name in members]
        shape = blueprint.inspected.shape
        return fingerprint_of([kind, architectures, shape, compute.precision, device, compute.threads])
