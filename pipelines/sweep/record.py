"""The record of a trial in the output folder: what is stored, where, and under which fingerprint it is found again."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.experiment.config import Experiment
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.space import Settings, settled

STOPPED = "the scheduler saw little hope in it"


@dataclass
class Record:
    """What is known of a trial: its settings, every look, the curve, and how it ended.

    `status`: running, done, failed (with the `reason`), or stopped by the scheduler. `lost`: it failed for a reason
    that need not come again.
    """

    settings: Settings
    status: str
    looks: list[dict[str, Any]]
    curve: list[dict[str, float]]
    seconds: float = 0.0
    reason: str = ""
    lost: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it is over, and would end no other way if it were tried again."""
        return self.status in ("done", "stopped") or (self.status == "failed" and not self.lost)

    @property
    def last(self) -> dict[str, Any]:
        """The last look; empty where there was none."""
        return self.looks[-1] if self.looks else {}


def record_path(sweep_folder: str, mark: str) -> str:
    """Where the record of the trial with this fingerprint lies."""
    return f"{sweep_folder}/trials/{mark}.json"


def trial_fingerprint(
    experiment: Experiment, inputs: Mapping[str, Any], identities: Mapping[str, Any], settings: Settings
) -> str:
    """Of the inputs of a sweep, the settings laid over the experiment's, and the witnesses that they name."""
    align, witnesses = settled(experiment, settings)
    return fingerprint_of([inputs, align.deciding, [identities[name] for name in witnesses]])


def read_record(store: Store, place: str) -> Record | None:
    """A trial's record, if there is one that is whole."""
    found = store.read_json(place)
    names = {field.name for field in dataclasses.fields(Record)}
    return Record(**found) if found is not None and found.keys() == names else None


def write_record(store: Store, place: str, record: Record) -> None:
    """Stores a record as JSON; a file that is there already is replaced."""
    store.write_json(place, dataclasses.asdict(record))
