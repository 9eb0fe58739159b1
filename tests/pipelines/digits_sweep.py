"""A sweep over the tiny experiment on digits: what is tried, and what a sweep left."""

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
    """What makes the tiny experiment one that can be swept, and small."""
    data = experiment(weights)["data"] | {"validation": VALIDATION}
    attacks = {"pgd": {"method": "pgd", "eps": "12/255", "step": "5/255", "steps": 3}}
    own = {"data": data, "validation_targets": ["cnn_d"], "targets": ["cnn_c"], "variants": {}, "attacks": attacks}
    return own | {"controls": []} | changes


def write_sweep(folder: Path, weights: Path, **changes: Any) -> Path:
    """The experiment file in `folder`."""
    return write_experiment(folder, weights, **sweep_settings(weights, **changes))


@dataclass(frozen=True)
class Swept:
    """A sweep that is over."""

    request: Request
    space: str
    result: SweepResult

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return Path(self.result.location)

    def trials(self) -> list[dict[str, str]]:
        """The rows of trials.csv."""
        with open(self.folder / "trials.csv", newline="") as file:
            return list(csv.DictReader(file))

    def records(self) -> dict[str, dict[str, Any]]:
        """What is kept of each trial."""
        return {file.stem: json.loads(file.read_text()) for file in (self.folder / "trials").glob("*.json")}


def labels(trials: Sequence[dict[str, str]], key: str) -> list[str]:
    """One column, sorted."""
    return sorted(trial[key] for trial in trials)
