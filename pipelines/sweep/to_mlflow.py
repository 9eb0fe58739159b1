"""Logs a sweep to MLflow: the sweep is the parent run and its trials are its children, as MLflow's Compare expects."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.report.to_mlflow import curve_points, place_of
from pipelines.stages.blueprint import Blueprint
from pipelines.sweep.entry import Entry
from pipelines.sweep.record import Record, StoredMeasurement
from pipelines.sweep.settings import label_of
from pipelines.sweep.space import Space
from pipelines.tracking.runs import Ended, Point, Runs, log_to_mlflow


@contextmanager
def sweep_shown(blueprint: Blueprint, entry: Entry, space: Space, fingerprint: str) -> Iterator[None]:
    """Shows the sweep in MLflow as under way while the work inside the block goes on, and marks it where it is stopped.

    `log_sweep` ends it where it is not. A sweep whose process was killed is marked at the next start.
    """

    def said(write: Callable[[Runs, str], None]) -> None:
        def logged(runs: Runs) -> None:
            write(runs, _parent(runs, entry, space, fingerprint))

        log_to_mlflow(blueprint.experiment, lambda line: None, "", logged)

    def begin(runs: Runs, parent: str) -> None:
        runs.mark_killed(runs.left_open(place_of(blueprint)))
        runs.open(parent, place_of(blueprint))

    said(begin)
    try:
        yield
    except BaseException as stopped:
        status: Ended = "KILLED" if isinstance(stopped, KeyboardInterrupt) else "FAILED"
        said(lambda runs, parent: runs.end(parent, status))
        raise


def log_sweep(
    blueprint: Blueprint,
    entry: Entry,
    space: Space,
    records: Mapping[str, Record],
    fingerprint: str,
    files: str | None = None,
    best: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> bool:
    """Logs every trial that has ended and is not in MLflow yet.

    Args:
        blueprint, entry, space: the experiment, the surrogate whose settings are searched, and which these are.
        records: the trials by fingerprint.
        fingerprint: the sweep's own, by which its run is found again.
        files: a folder of the store whose files become artifacts of the sweep's run, which then ends; None while the
            sweep goes on.
        best: the chosen trial, whose figures the sweep's run then has; None where there is none.
        say: is given the warning where the server cannot be reached.

    Returns whether everything is logged. A server that does not answer costs no result: the next call logs the rest.
    """

    def write(runs: Runs) -> None:
        parent = _parent(runs, entry, space, fingerprint)
        if files is None:
            runs.note_alive(parent)
        for trial, record in records.items():
            if record.is_final:
                _log_trial(runs, parent, space, f"{fingerprint}-{trial}", record)
        if files is not None:
            for name in blueprint.store.listing(files).get(files, []):
                runs.log_artifact(parent, name, blueprint.store.read(f"{files}/{name}"))
            if best is not None:
                runs.log_changed_metrics(parent, _figures(records[best].measurements[-1]))
            runs.describe(parent, _description(entry, space, records, best))
            runs.end(parent)

    return log_to_mlflow(blueprint.experiment, say, "the same command logs them again", write)


def _parent(runs: Runs, entry: Entry, space: Space, fingerprint: str) -> str:
    """The run of a sweep, which is created where there is none."""
    parent = runs.run("sweep", f"sweep {entry.label(space.name)}", None, fingerprint)
    about = {"space": space.name, "source": entry.surrogate.source, "surrogate": entry.name}
    runs.log_new_parameters(parent, about)
    return parent


def _log_trial(runs: Runs, parent: str, space: Space, fingerprint: str, record: Record) -> None:
    """Logs one trial as a child run, unless it was logged with this status before."""
    name = ", ".join(f"{key.removeprefix('align.')} {_short(record.settings[key])}" for key in space.keys)
    ended = record.last.get("timestamp")
    began = record.last["timestamp"] - record.last["seconds"] if record.last else None
    run = runs.run("trial", name, parent, fingerprint, began=began)
    if runs.tags(run).get("witness.logged") == record.status:
        return
    runs.log_new_parameters(run, {key: label_of(record.settings[key]) for key in space.keys})
    points: list[Point] = []
    # The last measurement is logged first, because MLflow's plots show the metrics that it got first.
    for measurement in reversed(record.measurements):
        # Measurements before the end are on fewer images, so they are a curve of their own.
        is_last = record.status == "done" and measurement is record.measurements[-1]
        for key, value in _figures(measurement).items():
            name = key if is_last else f"on the way/{key}"
            points.append((name, value, measurement["timestamp"], measurement["step"]))
    runs.log_points(run, points + curve_points(record.curve))
    runs.set_tag(run, "witness.status", record.status)
    if record.reason:
        runs.set_tag(run, "witness.reason", record.reason[:500])
    runs.set_tag(run, "witness.logged", record.status)
    runs.end(run, "FAILED" if record.status == "failed" else "FINISHED", at=ended)


def _short(value: Any) -> str:
    """The value of a setting in a name, which need not be exact: the parameters are."""
    return f"{value:.4g}" if isinstance(value, float) else str(label_of(value))


def _description(entry: Entry, space: Space, records: Mapping[str, Record], best: str | None) -> str:
    """What the sweep searched, and how its trials ended."""
    ends = Counter(record.status for record in records.values())
    keys = ", ".join(f"`{key}`" for key in space.keys)
    said = ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))
    chosen = "none, because no trial kept clean accuracy"
    if best is not None:
        settings = records[best].settings
        chosen = ", ".join(f"`{key}` {label_of(settings[key])}" for key in space.keys)
    return (
        f"**Asked.** Which {keys} make `{entry.name}` transfer best to validation targets, on validation images?\n\n"
        f"**Trials.** {said}. **Chosen:** {chosen}. The experiment with these settings is in the artifact best.yaml, "
        "and all trials are in trials.csv; the largest gain of many is biased upwards."
    )


def _figures(measurement: StoredMeasurement) -> dict[str, float]:
    """The figures of a measurement, under the names that surrogates have theirs; trials.csv has the rate by target."""
    rates = list(measurement["rates"].values())
    figures = {
        "gain": measurement["gain"],
        "gain_low": measurement["gain_low"],
        "gain_high": measurement["gain_high"],
        "clean_accuracy": measurement["clean_accuracy"],
        "clean_change": measurement["clean_change"],
    }
    return figures | ({"rate": sum(rates) / len(rates)} if rates else {})
