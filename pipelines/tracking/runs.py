"""MLflow itself: where it is, how it is asked with little patience, and runs that are found again by their tags."""

import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_core.errors import InputError, reason_of
from pipelines.experiment.config import Experiment
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Say
from pipelines.storage.versions import versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1_000
Point = tuple[str, float, float, int]
"""A metric's name and value, when it was so in seconds, and its step."""


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


def _client(uri: str) -> "MlflowClient":
    """MLflow with little patience and few words."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")  # MLflow's own patience is minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def registered_files(experiment: Experiment, name: str, version: str, wanted: Sequence[str]) -> dict[str, bytes]:
    """Files of one version of a registered model. Raises InputError where there is none, or MLflow cannot be asked."""
    uri = tracking_uri(experiment)
    try:
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            raise FileNotFoundError("there is no such database")
        client = _client(uri)
        found = client.get_model_version(name, version)
        folder = str(found.source).partition(f"runs:/{found.run_id}/")[2]
        with tempfile.TemporaryDirectory() as place:
            downloaded = Path(client.download_artifacts(found.run_id, folder, place))
            return {file: (downloaded / file).read_bytes() for file in wanted}
    except Exception as problem:  # whatever MLflow, its server or its database raise
        safe = without_credentials(uri)
        reason = reason_of(problem).replace(uri, safe)
        raise InputError(f"MLflow at {safe} gives no model {name}, version {version} ({reason})") from problem


def telling(experiment: Experiment, say: Say, again: str, write: Callable[["Runs"], None]) -> bool:
    """Lets `write` tell MLflow; returns whether it was told all.

    A server that does not answer is a warning, not an error: the files are there, and can be sent later (`again`: how).
    """
    uri = tracking_uri(experiment)
    try:
        _make_database(uri)
        write(Runs(_client(uri), experiment))
    except Exception as problem:  # whatever MLflow, its server or its database raise: results are not lost for it
        safe = without_credentials(uri)
        reason = reason_of(problem).replace(uri, safe)
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

    def log_artifact(self, run: str, name: str, content: bytes, folder: str | None = None) -> None:
        """A file."""
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / name).write_bytes(content)
            self._client.log_artifact(run, str(Path(place) / name), folder)

    def register(self, run: str, folder: str, name: str, digest: str) -> None:
        """A run's artifacts in `folder` as a new version of a registered model, unless one has this hash of weights."""
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        versions = self._client.search_model_versions(f"name = '{name}'")
        if all(version.tags.get("witness.weights") != digest for version in versions):
            self._client.create_model_version(name, f"runs:/{run}/{folder}", run, tags={"witness.weights": digest})
