"""How long the work takes: seconds of one worker, measured as it goes on and kept for the next plan."""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pipelines.stages.blueprint import Blueprint
from pipelines.stages.inspect import SEEN
from pipelines.storage.store import fingerprint_of

_PLACE = f"{SEEN}/rates.json"
_SAVED_EVERY = 60.0
Kind = Literal["gradient", "prediction"]


class Rates:
    """Seconds of one worker per image and gradient, or per image and prediction, by architecture and hardware.

    The latest measurement counts.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._known: dict[str, float] = blueprint.store.read_json(_PLACE) or {}
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._saved = time.monotonic()

    def note(self, kind: Kind, members: Sequence[str], device: str, count: float, seconds: float) -> None:
        """So many gradients or predictions by the mean of `members` took so long."""
        spent = self._spent[self._key(kind, members, device)]
        spent[0] += count
        spent[1] += seconds
        if time.monotonic() - self._saved > _SAVED_EVERY:  # a long run may be killed
            self.save()

    def seconds(self, kind: Kind, members: Sequence[str]) -> float | None:
        """Of one gradient or prediction for one image, on a GPU where that was measured; None: never measured."""
        found = (self._known.get(self._key(kind, members, device)) for device in ("cuda", "cpu"))
        return next((seconds for seconds in found if seconds is not None), None)

    def save(self) -> None:
        """Keeps what was noted."""
        self._saved = time.monotonic()
        new = {key: seconds / count for key, (count, seconds) in self._spent.items() if count}
        if new:
            self._known |= new
            self._blueprint.store.write_json(_PLACE, self._known)

    def _key(self, kind: Kind, members: Sequence[str], device: str) -> str:
        blueprint, compute = self._blueprint, self._blueprint.experiment.compute
        architectures = [blueprint.networks[name].config.architecture for name in members]
        return fingerprint_of(
            [kind, architectures, blueprint.inspected.shape, compute.precision, device, compute.threads]
        )
