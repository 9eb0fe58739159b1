"""The trials of a sweep as a table, which of them is chosen, and the experiment that the choice leads to."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

from pipelines.experiment.config import Experiment, VariantConfig, checked
from pipelines.sweep.record import Record
from pipelines.sweep.space import Settings, Space, label_of, settled

Row = dict[str, Any]

_FIGURES = ("gain", "gain_low", "gain_high", "clean_accuracy", "clean_change")


def trial_rows(space: Space, records: dict[str, Record], targets: Sequence[str]) -> list[Row]:
    """A row per trial, the largest gain first; those that did not end come last.

    `gain` and the rest are in points and percent, on `n` validation images: fewer for a trial that was stopped on its
    way. `pareto`: no finished trial has more gain and no less clean accuracy, or more clean accuracy and no less gain.
    """
    pareto = pareto_set(records)
    rows = []
    for mark, record in records.items():
        last = record.last if record.status != "failed" else {}
        row: Row = {"trial": mark, **{key: label_of(record.settings[key]) for key in space.keys}}
        row |= {name: last.get(name) for name in _FIGURES}
        row |= {f"{target}/rate": last.get("rates", {}).get(target) for target in targets}
        row |= {"n": last.get("n"), "pareto": int(mark in pareto), "status": record.status}
        row |= {"steps": last.get("step"), "seconds": record.seconds, "reason": " ".join(record.reason.split())}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["status"] != "done", -(row["gain"] or 0), row["trial"]))


def pareto_set(records: dict[str, Record]) -> set[str]:
    """The finished trials that no other beats in gain or clean accuracy without losing in the other."""
    ends = {m: (r.last["gain"], r.last["clean_accuracy"]) for m, r in records.items() if r.status == "done"}

    def is_beaten(own: tuple[float, float]) -> bool:
        return any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in ends.values())

    return {mark for mark, own in ends.items() if not is_beaten(own)}


def chosen(records: dict[str, Record], max_clean_drop: float) -> str | None:
    """The finished trial of the largest gain among those that keep clean accuracy; None where none does.

    Of equal gains, the one of most clean accuracy.
    """
    kept = {m: r for m, r in records.items() if r.status == "done" and r.last["clean_change"] >= -max_clean_drop}

    def merit(mark: str) -> tuple[float, float, str]:
        return kept[mark].last["gain"], kept[mark].last["clean_accuracy"], mark

    return max(kept, key=merit, default=None)


def best_experiment(experiment: Experiment, space: str, settings: Settings) -> tuple[Experiment, str]:
    """The experiment of `best.yaml`, and what the variant with the default settings is called in it.

    Other variants are left out. Raises InputError where the name gets too long.
    """
    align, witnesses = settled(experiment, settings)
    names = chain(("default", "default_settings"), (f"default_{number}" for number in count(2)))
    default = next(name for name in names if name not in experiment.models)
    variant = VariantConfig(witnesses=list(experiment.witnesses), align=dataclasses.asdict(experiment.align))
    changes: dict[str, Any] = {
        "name": f"{experiment.name}-best-{space}",
        "align": align,
        "witnesses": list(witnesses),
        "variants": {default: variant},
    }
    return checked(experiment.model_copy(update=changes)), default


def as_csv(rows: Sequence[Row]) -> bytes:
    """Returns the content of trials.csv; figures have four decimals."""
    figures = [
        {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    ]
    return _to_csv(figures, list(rows[0]) if rows else ["trial"])


def _to_csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
