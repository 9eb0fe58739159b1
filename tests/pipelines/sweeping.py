"""Helpers for tests of sweeps: an experiment to lay settings over, spaces, and records of trials that never ran."""

from pathlib import Path
from typing import Any

import yaml
from digits_experiment import write_experiment

from pipelines.experiment.config import Experiment, load_experiment
from pipelines.sweep.entry import Entry, entry_of
from pipelines.sweep.record import Record
from pipelines.sweep.settings import Settings
from pipelines.sweep.space import Dimension, Space

TEMPERATURE = {"align.temperature": {"low": 1, "high": 64, "scale": "log"}}
WITNESSES = ["wide", "cnn_b"]
IMAGES = 256


def experiment_in(folder: Path, **changes: Any) -> Experiment:
    """Returns the digits experiment with two witnesses. The weights that it names do not exist."""
    roles = {"witnesses": WITNESSES, "validation_targets": ["cnn_d"], "variants": {}}
    return load_experiment(write_experiment(folder, folder, **(roles | changes)))


def entry_in(folder: Path, surrogate: str = "aligned", **changes: Any) -> Entry:
    """Returns a surrogate of that experiment, of which the settings are searched."""
    return entry_of(experiment_in(folder, **changes), surrogate, IMAGES)


def space_file(folder: Path, keys: dict[str, dict[str, Any]], name: str = "mine") -> str:
    """Writes a space file with these keys and returns its path."""
    content = {"why": "a test", "keys": {key: {"why": "a test"} | dimension for key, dimension in keys.items()}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def space_of(keys: dict[str, dict[str, Any]]) -> Space:
    """Returns a space with these keys that was not checked against any experiment."""
    ranges = {key: Dimension(why="a test", **dimension) for key, dimension in keys.items() if "low" in dimension}
    choices = {key: dimension["choices"] for key, dimension in keys.items() if "choices" in dimension}
    return Space("by-hand", "a test", ranges, choices)


def trial(
    gain: float = 0.0, accuracy: float = 90.0, change: float = 0.0, settings: Settings | None = None, **how: Any
) -> Record:
    """Returns a record with one measurement that has these figures; `how` sets other fields of the record."""
    measurement = {"n": 200, "gain": gain, "gain_low": gain - 1.5, "gain_high": gain + 2.0, "clean_accuracy": accuracy}
    measurement |= {
        "clean_change": change,
        "rates": {"cnn_d": 30.0 + gain},
        "step": 8,
        "timestamp": 1e9,
        "seconds": 2.0,
    }
    return Record(
        settings or {"align.temperature": 4.0}, **({"status": "done", "measurements": [measurement], "curve": []} | how)
    )
