"""MLflow: one experiment per name, a run per surrogate below the run of the whole. Nothing else knows MLflow.

Results are files first; MLflow is told afterwards, and told nothing twice. A server that is down costs a warning.
"""

import csv
import io
import logging
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_core.errors import InputError
from pipelines.config import Experiment
from pipelines.credentials import without_credentials
from pipelines.fine_tune import settings_of
from pipelines.plan import Plan
from pipelines.report import FILES, Report, Row
from pipelines.store import Say, fingerprint
from pipelines.surrogates import Surrogate
from pipelines.versions import versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1_000
Point = tuple[str, float, float, int]
"""A metric's name and value, when it was so in seconds, and its step."""
_CURVES = ("loss", "alignment_loss", "label_loss", "grad_norm", "lr")


def tracking_uri(experiment: Experiment) -> str:
    """Where runs are logged. Raises InputError where an object store leaves no default."""
    uri = experiment.tracking or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    if "://" in experiment.output:
        raise InputError(
            "tracking: must be given where `output` is an object store, which cannot hold MLflow's database"
        )
    return f"sqlite:///{experiment.output}/mlflow.db"


def telling(experiment: Experiment, say: Say, again: str, write: Callable[["Runs"], None]) -> bool:
    """Lets `write` tell MLflow; returns whether it was told all.

    A server that does not answer is a warning, not an error: the files are there, and can be sent later (`again`: how).
    """
    uri = tracking_uri(experiment)
    # MLflow's own patience is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        _make_database(uri)
        write(Runs(MlflowClient(tracking_uri=uri), experiment))
    except Exception as problem:  # whatever MLflow, its server or its database raise: results are not lost for it
        safe = without_credentials(uri)
        reason = (str(problem).splitlines() or [type(problem).__name__])[0].replace(uri, safe)
        say(f"warning: MLflow at {safe} could not be told ({reason}). The results are kept; {again}")
        return False
    return True


def _make_database(uri: str) -> None:
    """MLflow makes its tables in many steps, and never opens again what was killed between two: they appear at once."""
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or "?" in uri or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments()
        try:
            os.link(aside, path)  # unlike a rename, it leaves alone what another run made meanwhile
        except FileExistsError:
            return
        except OSError:  # a filesystem without links
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


class Runs:
    """The runs of one experiment, found again by their tags, so that nothing is logged twice."""

    def __init__(self, client: "MlflowClient", experiment: Experiment) -> None:
        self._client = client
        found = client.get_experiment_by_name(experiment.name)
        if found is not None:
            self._experiment_id = str(found.experiment_id)
            return
        # A database holds no files; a server keeps artifacts where it was told to.
        uri = tracking_uri(experiment)
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        folder = database.parent if "://" in experiment.output else Path(experiment.output)
        beside = folder / "mlartifacts" / experiment.name
        place = beside.as_uri() if uri.startswith("sqlite:") and beside.is_absolute() else None
        self._experiment_id = str(client.create_experiment(experiment.name, artifact_location=place))

    def run(self, kind: str, name: str, parent: str | None, mark: str, began: float | None = None) -> str:
        """The run of this kind and fingerprint; made if it is not there, as one that `began` then (seconds)."""
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`witness.fingerprint` = '{mark}' and tags.`witness.kind` = '{kind}'"
        )
        if found:
            return str(found[0].info.run_id)
        tags = {"witness.kind": kind, "witness.fingerprint": mark}
        tags |= {f"version.{package}": version for package, version in versions().items()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        start = None if began is None else int(began * 1000)
        run = self._client.create_run(self._experiment_id, start_time=start, tags=tags, run_name=name)
        return str(run.info.run_id)

    def tags(self, run: str) -> dict[str, str]:
        """A run's tags."""
        return dict(self._client.get_run(run).data.tags)

    def set_tag(self, run: str, key: str, value: str) -> None:
        """One tag."""
        self._client.set_tag(run, key, value)

    def end(self, run: str, failed: bool = False, at: float | None = None) -> None:
        """Says that a run is over, now or since `at` (seconds)."""
        self._client.set_terminated(run, "FAILED" if failed else "FINISHED", None if at is None else int(at * 1000))

    def log_new_parameters(self, run: str, parameters: dict[str, Any]) -> None:
        """Parameters that the run has not: they cannot be changed."""
        from mlflow.entities import Param

        known = self._client.get_run(run).data.params
        new = [Param(key, str(value)[:500]) for key, value in parameters.items() if key not in known]
        self._client.log_batch(run, params=new)

    def log_changed_metrics(self, run: str, metrics: dict[str, float]) -> None:
        """A metric that is there with this very value is not logged again: its history would grow."""
        known = self._client.get_run(run).data.metrics
        now = time.time()
        self.log_points(run, [(key, value, now, 0) for key, value in metrics.items() if known.get(key) != value])

    def log_points(self, run: str, points: Sequence[Point]) -> None:
        """Points of curves."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, int(seconds * 1000), step) for key, value, seconds, step in points]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + _BATCH])

    def log_artifact(self, run: str, name: str, content: bytes) -> None:
        """A file."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(content)
            self._client.log_artifact(run, str(Path(folder) / name))


def curve_points(curve: Iterable[Mapping[str, Any]]) -> list[Point]:
    """An alignment's curve, step by step with its own timestamps."""
    return [
        (f"curve/{name}", float(row[name]), float(row["timestamp"]), int(row["step"]))
        for row in curve
        for name in _CURVES
    ]


def log_report(plan: Plan, report: Report, say: Say, again: bool = False) -> bool:
    """Logs the report, but not one that was logged there before (unless `again`). Returns whether all is logged."""
    uri = without_credentials(tracking_uri(plan.experiment))
    marker = {"report": report.fingerprint, "tracking": fingerprint(uri)}
    if not again and plan.store.read_json("report/logged.json") == marker:
        return True
    is_told = telling(
        plan.experiment, say, "`witness report --log` sends them", lambda runs: _write_report(runs, plan, report)
    )
    if is_told:
        plan.store.write_json("report/logged.json", marker)
    return is_told


def _write_report(runs: Runs, plan: Plan, report: Report) -> None:
    parent = runs.run("experiment", plan.experiment.name, None, fingerprint(plan.experiment.name))
    for name in FILES:
        runs.log_artifact(parent, name, plan.store.read(f"report/{name}"))
    runs.log_artifact(parent, "experiment.yaml", plan.store.read("experiment.yaml"))
    for surrogate in plan.surrogates:
        run = runs.run("surrogate", surrogate.name, parent, _fingerprint(plan, surrogate))
        _log_surrogate(runs, run, plan, report, surrogate)
        runs.end(run)
    runs.end(parent)


def _fingerprint(plan: Plan, surrogate: Surrogate) -> str:
    """Of alignment, images, attacks and how they are called, for parameters cannot be changed.

    Not of targets: one that is added later adds metrics to the same run.
    """
    attacks = {attack: plan.adversarial(surrogate, attack).fingerprint for attack in plan.experiment.attacks}
    return fingerprint([attacks, _parameters(plan, surrogate)])


def _log_surrogate(runs: Runs, run: str, plan: Plan, report: Report, surrogate: Surrogate) -> None:
    runs.log_new_parameters(run, _parameters(plan, surrogate))
    runs.log_changed_metrics(run, _metrics(report, surrogate.name))
    card = f"models/{surrogate.name}/card.json"
    if surrogate.align is not None and plan.store.exists(card):
        runs.log_artifact(run, "card.json", plan.store.read(card))
        if runs.tags(run).get("witness.curves") != "logged":
            curves = io.StringIO(plan.store.read(f"models/{surrogate.name}/curves.csv").decode())
            runs.log_points(run, curve_points(csv.DictReader(curves)))
            runs.set_tag(run, "witness.curves", "logged")


def _parameters(plan: Plan, surrogate: Surrogate) -> dict[str, Any]:
    """Settings that decide what comes out, under their dotted keys."""
    experiment = plan.experiment
    parameters: dict[str, Any] = {
        "surrogate": surrogate.name,
        "source": surrogate.source,
        "witnesses": ", ".join(surrogate.witnesses),
        "seed": experiment.seed,
        "data.image_size": experiment.data.image_size,
    }
    if surrogate.align is not None:
        parameters |= _dotted("align", settings_of(surrogate.align))
    for name, attack in experiment.attacks.items():
        parameters |= _dotted(f"attacks.{name}", asdict(attack.resolved()))
    return parameters


def _dotted(prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _dotted(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _metrics(report: Report, surrogate: str) -> dict[str, float]:
    """`<attack>/<target>/rate` and so on; a mean row loses its brackets, which MLflow does not take."""

    def of(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["surrogate"] == surrogate]

    metrics = {}
    for row in of(report.transfer):
        start = f"{row['attack']}/{row['target'].strip('()')}"
        for name in ("rate", "rate_low", "rate_high", "rate_all", "gain", "gain_low", "gain_high", "p_value", "n"):
            metrics[f"{start}/{name}"] = row[name]
    for row in of(report.contrasts):
        start = f"{row['attack']}/{row['target'].strip('()')}/against {row['baseline']}"
        for name in ("gain", "gain_low", "gain_high"):
            metrics[f"{start}/{name}"] = row[name]
    for row in of(report.surrogates):
        for name in ("attacked_accuracy", "whitebox_rate", "mean_l2"):
            metrics[f"{row['attack'].strip('()')}/{name}"] = row[name]
        for name in ("clean_accuracy", "clean_change", "witness_agreement", "robust_accuracy"):
            metrics[name] = row[name]
    return {name: float(value) for name, value in metrics.items() if value is not None}


def serve_page(uri: str, port: int) -> int:
    """Becomes the server of MLflow's own page on a database; a server has its page already. Returns the exit code."""
    if uri.startswith(("http://", "https://")):
        print(f"MLflow runs at {without_credentials(uri)}")
        return 0
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    # Not by the command line, which everyone on this machine can read.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri})
