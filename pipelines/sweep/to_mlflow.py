"""A sweep in MLflow: the sweep is the parent, its trials are children, so that Compare works without preparation."""

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.report.to_mlflow import curve_points
from pipelines.stages.blueprint import Blueprint
from pipelines.sweep.record import Record
from pipelines.sweep.space import Space, label_of
from pipelines.tracking.runs import Point, Runs, telling


def log_sweep(
    blueprint: Blueprint,
    space: Space,
    records: Mapping[str, Record],
    mark: str,
    files: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> bool:
    """Tells MLflow of every trial that has ended and that it does not know; with `files`, of those in that folder too.

    Returns whether all is logged: a server that does not answer is a warning, and the next call tells it.
    """

    def write(runs: Runs) -> None:
        parent = runs.run("sweep", f"sweep {space.name}", None, mark)
        runs.log_new_parameters(parent, {"space": space.name, "source": blueprint.experiment.source})
        for trial, record in records.items():
            if record.is_final:
                _log_trial(runs, parent, space, mark, trial, record)
        if files is not None:
            for name in blueprint.store.listing(files).get(files, []):
                runs.log_artifact(parent, name, blueprint.store.read(f"{files}/{name}"))
            runs.end(parent)

    return telling(blueprint.experiment, say, "the same command tells it again", write)


def _log_trial(runs: Runs, parent: str, space: Space, sweep: str, trial: str, record: Record) -> None:
    """One child; nothing where it is there already."""
    name = ", ".join(f"{key.removeprefix('align.')} {label_of(record.settings[key])}" for key in space.keys)
    ended = record.last.get("timestamp")
    run = runs.run("trial", name, parent, f"{sweep}-{trial}", began=ended and ended - record.last["seconds"])
    if runs.tags(run).get("witness.logged") == record.status:
        return
    runs.log_new_parameters(run, {key: label_of(record.settings[key]) for key in space.keys})
    points: list[Point] = []
    for look in reversed(record.looks):  # the last one first: MLflow's plots begin with what they were told first
        # Before the end it is measured on fewer images: a curve of its own.
        is_last = record.status == "done" and look is record.looks[-1]
        for key, value in _figures(look).items():
            points.append((key if is_last else f"on the way/{key}", value, look["timestamp"], look["step"]))
    runs.log_points(run, points + curve_points(record.curve))
    runs.set_tag(run, "witness.status", record.status)
    if record.reason:
        runs.set_tag(run, "witness.reason", record.reason[:500])
    runs.set_tag(run, "witness.logged", record.status)
    runs.end(run, failed=record.status == "failed", at=ended)


def _figures(look: Mapping[str, Any]) -> dict[str, float]:
    names = ("gain", "gain_low", "gain_high", "clean_accuracy", "clean_change")
    return {name: look[name] for name in names} | {f"{t}/rate": rate for t, rate in look["rates"].items()}
