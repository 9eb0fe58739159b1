"""The record of a trial in the output folder: what is stored, where, and under which fingerprint it is found again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypedDict

from pipelines.experiment.config import Experiment
from pipelines.storage.sealed import read_sealed, write_sealed
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.space import Settings, settled

# The reason in the record of a trial that the scheduler ended early.
STOPPED = "the scheduler saw little hope in it"
# The key under which a record's file holds the measurements.
_MEASUREMENTS_KEY = "looks"


class StoredMeasurement(TypedDict, total=False):
    """A `Measurement` as a record holds it, with the number of training steps and the time at which it was made."""

    n: int
    gain: float
    gain_low: float
    gain_high: float
    clean_accuracy: float
    clean_change: float
    rates: Mapping[str, float]
    step: int
    timestamp: float
    seconds: float


@dataclass
class Record:
    """What is known of a trial.

    Attributes:
        settings: the values of the searched keys.
        status: `running`, `done`, `failed`, or `stopped` (by the scheduler, before its end).
        measurements: one after each quarter of the alignment; only the last is on all validation images.
        curve: a row per training step, as in curves.csv.
        seconds: how long the trial has taken so far, over all attempts.
        reason: why it failed or was stopped.
        lost: whether it failed for a reason outside of it, such as a node that died, so that it is worth another try.
    """

    settings: Settings
    status: str
    measurements: list[StoredMeasurement]
    curve: list[dict[str, float]]
    seconds: float = 0.0
    reason: str = ""
    lost: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the trial is over and would end in the same way if it were tried again."""
        return self.status in ("done", "stopped") or (self.status == "failed" and not self.lost)

    @property
    def last(self) -> StoredMeasurement:
        """The last measurement; empty where there is none."""
        return self.measurements[-1] if self.measurements else {}


def trial_fingerprint(
    experiment: Experiment, inputs: Mapping[str, Any], identities: Mapping[str, Any], settings: Settings
) -> str:
    """Returns the fingerprint of everything that determines a trial's result.

    Args:
        experiment: the experiment that the settings are laid over.
        inputs: what all trials of the sweep have in common (`Study.inputs`).
        identities: for each witness of the experiment, what identifies its weights.
        settings: the values of the searched keys. Only those witnesses count that they name.
    """
    align, witnesses = settled(experiment, settings)
    return fingerprint_of([inputs, align.deciding, [identities[name] for name in witnesses]])


def record_path(sweep_folder: str, fingerprint: str) -> str:
    """Returns the path, in the store, of the record of the trial with this fingerprint."""
    return f"{sweep_folder}/trials/{fingerprint}.json"


def read_record(store: Store, path: str) -> Record | None:
    """Reads a trial's record. None where there is no file, or a damaged or edited one: the trial then runs again."""
    content = read_sealed(store, path)
    if content is None:
        return None
    content["measurements"] = content.pop(_MEASUREMENTS_KEY, None)
    is_whole = content.keys() == {field.name for field in fields(Record)} and content["measurements"] is not None
    return Record(**content) if is_whole else None


def write_record(store: Store, path: str, record: Record) -> None:
    """Stores a record as JSON in place of an earlier one."""
    content = asdict(record)
    content[_MEASUREMENTS_KEY] = content.pop("measurements")
    write_sealed(store, path, content)
