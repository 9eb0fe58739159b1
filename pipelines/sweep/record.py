"""The record of a trial in the output folder: what is stored, where, and under which fingerprint it is found again."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, get_origin, get_type_hints

from pipelines.storage.sealed import read_sealed, write_sealed
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.entry import Entry, settled
from pipelines.sweep.settings import Settings

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
    entry: Entry, inputs: Mapping[str, Any], identities: Mapping[str, Any], settings: Settings
) -> str:
    """Returns the fingerprint of everything that determines a trial's result.

    Args:
        entry: the surrogate whose settings they are laid over.
        inputs: what all trials of the sweep have in common (`Study.inputs`).
        identities: for each of its witnesses, what identifies its weights.
        settings: the values of the searched keys. Only those witnesses count that they name.
    """
    align, witnesses = settled(entry, settings)
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
    return Record(**content) if _is_whole(content) else None


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether a record holds all that is read from it later, each of its type."""
    types = get_type_hints(Record)
    if content.keys() != types.keys():
        return False
    kinds = {name: get_origin(hint) or hint for name, hint in types.items()}
    if not all(isinstance(content[name], (float, int) if kind is float else kind) for name, kind in kinds.items()):
        return False
    measured, figures = content["measurements"], ("gain", "clean_accuracy", "clean_change", "step", "seconds")
    are_whole = all(
        isinstance(one, dict) and all(isinstance(one.get(f), int | float) for f in figures) for one in measured
    )
    return are_whole and (bool(measured) or content["status"] != "done")


def write_record(store: Store, path: str, record: Record) -> None:
    """Stores a record as JSON in place of an earlier one."""
    content = asdict(record)
    content[_MEASUREMENTS_KEY] = content.pop("measurements")
    write_sealed(store, path, content)


class RecordReader:
    """Reads the records of a sweep's trials; each further time only those whose files have changed since.

    Args:
        store, folder: where the trials of a space are.
        belongs: whether a record, by its fingerprint, is one of this sweep's: an earlier one may have left others.
    """

    def __init__(self, store: Store, folder: str, belongs: Callable[[str, Record], bool]) -> None:
        self._store, self._folder, self._belongs = store, f"{folder}/trials", belongs
        self._stamps: dict[str, tuple[int, int]] = {}
        self._records: dict[str, Record | None] = {}

    def read(self) -> dict[str, Record]:
        """The records as they are now, by fingerprint and in its order."""
        stamps = {name: stamp for name, stamp in self._store.stamps(self._folder).items() if name.endswith(".json")}
        for name in sorted(stamps.keys() | self._stamps.keys()):
            if stamps.get(name) != self._stamps.get(name):
                self._look_at(name.removesuffix(".json"), name in stamps)
        self._stamps = stamps
        return {fingerprint: own for fingerprint, own in sorted(self._records.items()) if own is not None}

    def _look_at(self, fingerprint: str, is_there: bool) -> None:
        record = read_record(self._store, f"{self._folder}/{fingerprint}.json") if is_there else None
        is_ours = record is not None and self._belongs(fingerprint, record)
        self._records[fingerprint] = record if is_ours else None
