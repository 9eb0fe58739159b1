"""MLflow: one experiment per name, a run per surrogate below the run of the whole. Nothing else knows MLflow.

Results are files first; MLflow is told afterwards, and told nothing twice. A server that is down costs a warning.
"""

import csv
import io
import logging
import os
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_core.errors import InputError
from pipelines.config import Experiment
from pipelines.fine_tune import settings_of
from pipelines.plan import Plan
from pipelines.report import FILES, Report, Row
from pipelines.store import Say, fingerprint
from pipelines.surrogates import Surrogate
from pipelines.versions import versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1_000
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


def without_credentials(uri: str) -> str:
    """The URI as it may be written and logged."""
    nameless = re.sub(r"(?<=://)[^/?#]*@", "***@", uri)
    return re.sub(r"\?.*", "?***", nameless)  # databases take a password as a parameter, too


def log_report(plan: Plan, report: Report, say: Say, again: bool = False) -> bool:
    """Logs the report unless this very one was logged there before (`again`: even then). Returns whether all is logged.

    A server that does not answer is a warning, not an error: the files are there, and can be sent later.
    """
    uri = tracking_uri(plan.experiment)
    marker = {"report": report.fingerprint, "tracking": fingerprint(without_credentials(uri))}
    if not again and plan.store.read_json("report/logged.json") == marker:
        return True
    # MLflow's own patience is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        _Log(MlflowClient(tracking_uri=uri), plan, report).write(uri)
    except Exception as problem:  # whatever MLflow, its server or its database raise: results are not lost for it
        safe = without_credentials(uri)
        reason = (str(problem).splitlines() or [type(problem).__name__])[0].replace(uri, safe)
        say(
            f"warning: MLflow at {safe} could not be told ({reason}). The results are kept; "
            "`witness report --log` sends them"
        )
        return False
    plan.store.write_json("report/logged.json", marker)
    return True


class _Log:
    """Writes one report through a client; finds its runs again by their tags."""

    def __init__(self, client: "MlflowClient", plan: Plan, report: Report) -> None:
        self.client, self.plan, self.report = client, plan, report

    def write(self, uri: str) -> None:
        self.experiment_id = self._experiment(uri)
        parent = self._run("experiment", self.plan.experiment.name, None, fingerprint(self.plan.experiment.name))
        self._log_whole(parent)
        for surrogate in self.plan.surrogates:
            run = self._run("surrogate", surrogate.name, parent, self._fingerprint(surrogate))
            self._log_surrogate(run, surrogate)
            self.client.set_terminated(run)
        self.client.set_terminated(parent)

    def _experiment(self, uri: str) -> str:
        name = self.plan.experiment.name
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A database holds no files; a server keeps artifacts where it was told to.
        beside = Path(self.plan.experiment.output) / "mlartifacts" / name
        place = beside.as_uri() if uri.startswith("sqlite:") and beside.is_absolute() else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def _run(self, kind: str, name: str, parent: str | None, mark: str) -> str:
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`witness.fingerprint` = '{mark}' and tags.`witness.kind` = '{kind}'"
        )
        if found:
            return str(found[0].info.run_id)
        tags = {"witness.kind": kind, "witness.fingerprint": mark}
        tags |= {f"version.{package}": version for package, version in versions().items()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return str(self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id)

    def _fingerprint(self, surrogate: Surrogate) -> str:
        """Of alignment, images, attacks and how they are called, for parameters cannot be changed.

        Not of targets: one that is added later adds metrics to the same run.
        """
        attacks = {a: self.plan.adversarial(surrogate, a).fingerprint for a in self.plan.experiment.attacks}
        return fingerprint([attacks, _parameters(self.plan, surrogate)])

    def _log_whole(self, run: str) -> None:
        store = self.plan.store
        for name in FILES:
            self._log_artifact(run, name, store.read(f"report/{name}"))
        self._log_artifact(run, "experiment.yaml", store.read("experiment.yaml"))

    def _log_surrogate(self, run: str, surrogate: Surrogate) -> None:
        known = self.client.get_run(run).data
        self._log_new_parameters(run, known.params, _parameters(self.plan, surrogate))
        self._log_changed_metrics(run, known.metrics, _metrics(self.report, surrogate.name))
        card = f"models/{surrogate.name}/card.json"
        if surrogate.align is not None and self.plan.store.exists(card):
            self._log_artifact(run, "card.json", self.plan.store.read(card))
            if known.tags.get("witness.curves") != "logged":
                self._log_curves(run, self.plan.store.read(f"models/{surrogate.name}/curves.csv").decode())
                self.client.set_tag(run, "witness.curves", "logged")

    def _log_new_parameters(self, run: str, known: dict[str, str], parameters: dict[str, Any]) -> None:
        from mlflow.entities import Param

        new = [Param(key, str(value)[:500]) for key, value in parameters.items() if key not in known]
        self.client.log_batch(run, params=new)

    def _log_changed_metrics(self, run: str, known: dict[str, float], metrics: dict[str, float]) -> None:
        """A metric that is there with this very value is not logged again: its history would grow."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = [Metric(key, value, now, 0) for key, value in metrics.items() if known.get(key) != value]
        for start in range(0, len(new), _BATCH):
            self.client.log_batch(run, metrics=new[start : start + _BATCH])

    def _log_curves(self, run: str, curves: str) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(f"curve/{name}", float(row[name]), int(float(row["timestamp"]) * 1000), int(row["step"]))
            for row in csv.DictReader(io.StringIO(curves))
            for name in _CURVES
        ]
        for start in range(0, len(points), _BATCH):
            self.client.log_batch(run, metrics=points[start : start + _BATCH])

    def _log_artifact(self, run: str, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(content)
            self.client.log_artifact(run, str(Path(folder) / name))


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
