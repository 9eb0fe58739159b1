"""A sweep over the tiny experiment on digits: its experiment file, and what a sweep leaves in its folder."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits_experiment import experiment, write_experiment

from pipelines.run.request import Request
from pipelines.sweep.command import SweepResult

VALIDATION = {"kind": "digits", "take": [1400, 1497]}


def sweep_settings(weights: Path, **changes: Any) -> dict[str, Any]:
    """Returns the keys that a sweep needs beyond the tiny experiment, with few images and one attack."""
    data = experiment(weights)["data"] | {"validation": VALIDATION}
    attacks = {"pgd": {"method": "pgd", "eps": "12/255", "step": "5/255", "steps": 3}}
    own = {"data": data, "validation_targets": ["cnn_d"], "targets": ["cnn_c"], "variants": {}, "attacks": attacks}
    return own | {"controls": []} | changes


def write_sweep(folder: Path, weights: Path, **changes: Any) -> Path:
    """Writes the experiment file and returns its path."""
    return write_experiment(folder, weights, **sweep_settings(weights, **changes))


@dataclass(frozen=True)
class Swept:
    """A sweep that is over: what was asked for, and the result."""

    request: Request
    space: str
    result: SweepResult

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.result.location)

    def trials(self) -> list[dict[str, str]]:
        """Reads the rows of trials.csv."""
        with open(self.folder / "trials.csv", newline="") as file:
            return list(csv.DictReader(file))

    def records(self) -> dict[str, dict[str, Any]]:
        """Reads the stored records of the trials, by fingerprint."""
        return {file.stem: json.loads(file.read_text()) for file in (self.folder / "trials").glob("*.json")}


def labels(trials: Sequence[dict[str, str]], key: str) -> list[str]:
    """Returns the values of one column, sorted."""
    return sorted(trial[key] for trial in trials)
