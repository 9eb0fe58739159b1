"""MLflow: where it is, how it is reached with short timeouts, and runs that are found again by their tags."""

import json
import logging
import os
import re
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align_core.errors import InputError, reason_of
from pipelines.environment import set_defaults
from pipelines.experiment.config import Experiment
from pipelines.storage.credentials import hide_credentials, without_credentials
from pipelines.storage.store import Say
from pipelines.storage.versions import versions
from pipelines.tracking.locations import ARTIFACTS, database_file, follow_moved_artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_BATCH = 1_000  # metrics in one request: MLflow's limit
_LONGEST = 500  # characters of a parameter that are kept: the limit of older servers
_LONGEST_DIGEST = 36  # characters of a dataset's digest
_LONGEST_NOTE = 5_000  # characters of a description: the limit of a tag's value
_PLACE, _ALIVE = "witness.place", "witness.alive"
_FINGERPRINT, _PARENT, _NOTE = "witness.fingerprint", "mlflow.parentRunId", "mlflow.note.content"
# MLflow takes an experiment without this tag for one with language models; with this value, for one with training runs.
_KIND, _ON_RUNS = "mlflow.experimentKind", "custom_model_development"

DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""The database servers that MLflow can use, and the port of each where none is given."""

Ended = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended: KILLED is what was stopped from outside."""

Point = tuple[str, float, float, int]
"""One point of a metric: its name, its value, the time of it in seconds since 1970, and its step."""


@dataclass(frozen=True)
class ImageSet:
    """An image set as MLflow shows it: its name, its role (such as `test`), its hash, where it lies, and its size."""

    name: str
    role: str
    digest: str
    source: str
    profile: Mapping[str, int]


def tracking_uri(experiment: Experiment) -> str:
    """Returns the address of the MLflow store that the experiment is logged to.

    It is `tracking` of the experiment file, else $MLFLOW_TRACKING_URI, else the database `mlflow.db` in the output
    folder. Raises InputError if neither is given and the output is an object store, which cannot hold a database, or a
    path that the URI of a database cannot hold.
    """
    uri = experiment.tracking or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    if "://" in experiment.output:
        raise InputError(
            "tracking: must be given where `output` is an object store, which cannot hold MLflow's database"
        )
    for sign, harm in ((r"\?", "would end at the `?`"), ("%[0-9A-Fa-f]{2}", "would have a letter for `%` and digits")):
        if re.search(sign, experiment.output):
            raise InputError(
                f"output: {experiment.output}: the path of MLflow's database in it {harm}; choose a folder without "
                "them, or give `tracking`"
            )
    return f"sqlite:///{experiment.output}/mlflow.db"


def client_of(uri: str) -> "MlflowClient":
    """Returns MLflow's client. The only place that imports it: the variables must be set before the first import.

    Raises OSError where nothing answers at the address of a database.
    """
    set_defaults("mlflow")
    _check_answers(uri)
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_answers(uri: str) -> None:
    """Raises OSError where nothing answers at the address of a database server: MLflow would go on trying for 100 s."""
    kind = uri.partition("://")[0].partition("+")[0]
    if kind not in DATABASES:
        return
    from sqlalchemy.engine import make_url

    address = make_url(uri)
    if address.host:
        socket.create_connection((address.host, address.port or DATABASES[kind]), timeout=5).close()


def registered_files(experiment: Experiment, name: str, version: str, wanted: Sequence[str]) -> dict[str, bytes]:
    """Downloads files of one version of a registered model.

    Returns the content of each file in `wanted`. Raises InputError if MLflow does not have them or cannot be reached.
    """
    uri = tracking_uri(experiment)
    try:
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            raise FileNotFoundError("there is no such database")
        client = client_of(uri)
        found = client.get_model_version(name, version)
        artifacts = str(found.source).partition(f"runs:/{found.run_id}/")[2]
        with tempfile.TemporaryDirectory() as folder:
            downloaded = Path(client.download_artifacts(found.run_id, artifacts, folder))
            return {file: (downloaded / file).read_bytes() for file in wanted}
    except Exception as problem:  # MLflow, its server and its database raise exceptions of many kinds
        safe = without_credentials(uri)
        reason = hide_credentials(reason_of(problem), uri)
        raise InputError(
            f"version {version} of the model {name} cannot be fetched from MLflow at {safe} ({reason})"
        ) from problem


def log_to_mlflow(experiment: Experiment, say: Say, resend: str, write: Callable[["Runs"], None]) -> bool:
    """Logs to the experiment's MLflow store, and turns any failure into a warning: the result files are complete.

    Args:
        experiment: says where MLflow is, and under which name its runs are found.
        say: is given the warning.
        resend: the end of the warning: how the results are sent later, such as "`witness report --log` sends them".
        write: does the logging.

    Returns whether `write` succeeded.
    """
    uri = tracking_uri(experiment)
    try:
        prepared(uri, say)
        write(Runs(client_of(uri), experiment))
    except Exception as problem:  # MLflow, its server and its database raise exceptions of many kinds
        safe = without_credentials(uri)
        reason = hide_credentials(reason_of(problem), uri)
        say(
            f"warning: logging to MLflow at {safe} failed ({reason}). The results are kept; once this is mended, "
            f"{resend}"
        )
        return False
    return True


def prepared(uri: str, say: Say) -> None:
    """Makes an SQLite database fit for use: creates it where there is none, and follows one that was moved.

    A new one appears with all its tables at once: MLflow creates them in many steps, and cannot open a database whose
    creation was interrupted between them. Other stores are left to themselves.
    """
    path = database_file(uri)
    if path is None:
        return
    if path.exists():
        follow_moved_artifacts(uri, say)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        client_of(f"sqlite:///{unfinished}").search_experiments()
        try:
            os.link(unfinished, path)  # unlike a rename, this does not replace a database that another run created
        except FileExistsError:
            return
        except OSError:  # the filesystem has no hard links
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _artifacts_of(experiment: Experiment) -> str | None:
    """Where artifacts lie that a database cannot hold: in a folder of the output, which is made. A server has its own.

    The folder is there from the start, for it shows that it belongs to the database when both are moved.
    """
    uri = tracking_uri(experiment)
    database = Path(uri.removeprefix("sqlite:///")).absolute()
    output = database.parent if "://" in experiment.output else Path(experiment.output)
    folder = output / ARTIFACTS / experiment.name
    if not uri.startswith("sqlite:") or not folder.is_absolute():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


class Runs:
    """The runs of one experiment in MLflow. They are found again by their tags, so that nothing is logged twice.

    Args:
        client: MLflow's client.
        experiment: its name is that of the experiment in MLflow, which is created if it is missing.
    """

    def __init__(self, client: "MlflowClient", experiment: Experiment) -> None:
        self._client = client
        found = client.get_experiment_by_name(experiment.name)
        if found is not None:
            self._experiment_id = str(found.experiment_id)
            if _KIND not in found.tags:
                client.set_experiment_tag(self._experiment_id, _KIND, _ON_RUNS)
            return
        location = _artifacts_of(experiment)
        tags = {_KIND: _ON_RUNS}
        self._experiment_id = str(client.create_experiment(experiment.name, location, tags))

    def run(
        self,
        kind: str,
        name: str,
        parent: str | None,
        fingerprint: str,
        began: float | None = None,
        pending: str | None = None,
    ) -> str:
        """Returns the id of the run with this kind and fingerprint, and creates the run if there is none.

        Args:
            kind: what the run stands for: an experiment, a surrogate, a sweep, a trial or a scheduled job.
            name: shown in MLflow's tables.
            parent: the id of the run below which it is shown. One that was below another moves.
            fingerprint: of the content that is logged; a run with another fingerprint is another run.
            began: the start of a new run, in seconds since 1970; now unless given.
            pending: the fingerprint of a run that was created before its content was known. It becomes this one.
        """
        found = self._found(kind, fingerprint)
        if found is None and pending is not None:
            found = self._found(kind, pending)
            if found is not None:
                self.set_tag(found.info.run_id, _FINGERPRINT, fingerprint)
        if found is not None:
            if parent is not None and found.data.tags.get(_PARENT) != parent:
                self.set_tag(found.info.run_id, _PARENT, parent)
            return str(found.info.run_id)
        tags = {"witness.kind": kind, _FINGERPRINT: fingerprint}
        tags |= {f"version.{package}": version for package, version in versions().items()}
        if parent is not None:
            tags[_PARENT] = parent
        start = None if began is None else int(began * 1000)
        run = self._client.create_run(self._experiment_id, start_time=start, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _found(self, kind: str, fingerprint: str) -> "Run | None":
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{_FINGERPRINT}` = '{fingerprint}' and tags.`witness.kind` = '{kind}'"
        )
        return found[0] if found else None

    def tags(self, run: str) -> dict[str, str]:
        """Returns all tags of a run."""
        return dict(self._client.get_run(run).data.tags)

    def set_tag(self, run: str, key: str, value: str) -> None:
        """Sets a tag of a run, which may have had another value."""
        self._client.set_tag(run, key, value)

    def describe(self, run: str, text: str) -> None:
        """Sets the description that MLflow shows above a run, in Markdown."""
        cut = text if len(text) <= _LONGEST_NOTE else f"{text[:_LONGEST_NOTE]} ..."
        if cut and self.tags(run).get(_NOTE) != cut:
            self.set_tag(run, _NOTE, cut)

    def log_images(self, run: str, image_sets: Sequence[ImageSet]) -> None:
        """Notes the image sets that a run used as its datasets. One that is noted already is not noted again."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for own in image_sets:
            source = json.dumps({"uri": own.source})
            dataset = Dataset(own.name, own.digest[:_LONGEST_DIGEST], "local", source, profile=json.dumps(own.profile))
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", own.role)]))
        self._client.log_inputs(run, inputs)

    def open(self, run: str, place: str) -> None:
        """Marks a run as under way, by the work in `place`: a name of the experiment's output folder."""
        for tag, value in ((_PLACE, place), (_ALIVE, str(time.time()))):
            self.set_tag(run, tag, value)
        self._client.update_run(run, "RUNNING")

    def left_open(self, place: str) -> list[str]:
        """Returns the ids of the runs that are marked as under way in `place`."""
        found = self._client.search_runs(
            [self._experiment_id], f"attributes.status = 'RUNNING' and tags.`{_PLACE}` = '{place}'"
        )
        return [str(run.info.run_id) for run in found]

    def mark_killed(self, runs: Sequence[str]) -> None:
        """Marks runs that nobody works on any more as killed, at the last moment at which any was known to go on."""
        alive = max((float(self.tags(run).get(_ALIVE, 0)) for run in runs), default=0.0)
        for run in runs:
            self.set_tag(run, "witness.killed", f"{datetime.fromtimestamp(alive, UTC):%Y-%m-%d %H:%M:%SZ}")
            self.end(run, "KILLED", alive)

    def note_alive(self, run: str) -> None:
        """Notes that a run is under way now."""
        self.set_tag(run, _ALIVE, str(time.time()))

    def began(self, run: str) -> float:
        """Returns when a run began, in seconds since 1970."""
        return float(self._client.get_run(run).info.start_time) / 1000

    def end(self, run: str, status: Ended = "FINISHED", at: float | None = None) -> None:
        """Marks a run as ended, now or `at` a time in seconds since 1970, but not before it began."""
        end = None if at is None else max(int(at * 1000), self._client.get_run(run).info.start_time)
        self._client.set_terminated(run, status, end)

    def log_new_parameters(self, run: str, parameters: dict[str, Any]) -> None:
        """Logs those parameters that the run does not have yet. MLflow refuses to change the others."""
        from mlflow.entities import Param

        known = self._client.get_run(run).data.params
        new = [Param(key, str(value)[:_LONGEST]) for key, value in parameters.items() if key not in known]
        self._client.log_batch(run, params=new)

    def log_changed_metrics(self, run: str, metrics: dict[str, float]) -> None:
        """Logs those metrics whose value is new. Logging an equal value again would lengthen the metric's history."""
        known = self._client.get_run(run).data.metrics
        now = time.time()
        self.log_points(run, [(key, value, now, 0) for key, value in metrics.items() if known.get(key) != value])

    def log_missing_points(self, run: str, points: Sequence[Point]) -> None:
        """Logs those points of curves whose step the run does not have yet."""
        known = self._client.get_run(run).data.metrics
        curves = {name for name, *_ in points if name in known}
        there = {(name, point.step) for name in curves for point in self._client.get_metric_history(run, name)}
        self.log_points(run, [point for point in points if (point[0], point[3]) not in there])

    def last_step(self, run: str, metric: str) -> int:
        """Returns the last step of a curve that the run has; -1 where it has none."""
        if metric not in self._client.get_run(run).data.metrics:
            return -1
        return max(int(point.step) for point in self._client.get_metric_history(run, metric))

    def log_points(self, run: str, points: Sequence[Point]) -> None:
        """Logs points of curves, in as many requests as their number needs."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, int(seconds * 1000), step) for key, value, seconds, step in points]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + _BATCH])

    def log_artifact(self, run: str, name: str, content: bytes, folder: str | None = None) -> None:
        """Logs a file of this name and content, in `folder` of the run's artifacts."""
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / name).write_bytes(content)
            self._client.log_artifact(run, str(Path(temporary) / name), folder)

    def log_files(self, run: str, files: Mapping[str, bytes], folder: str) -> None:
        """Logs files by their paths below `folder` of the run's artifacts, all at once."""
        with tempfile.TemporaryDirectory() as temporary:
            for path, content in files.items():
                file = Path(temporary) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._client.log_artifacts(run, temporary, folder)

    def register(self, run: str, folder: str, name: str, digest: str) -> None:
        """Registers the artifacts in `folder` of a run as a new version of the model `name`.

        Does nothing if a version of the model has the same weights; `digest` is their hash.
        """
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        versions = self._client.search_model_versions(f"name = '{name}'")
        if all(version.tags.get("witness.weights") != digest for version in versions):
            self._client.create_model_version(name, f"runs:/{run}/{folder}", run, tags={"witness.weights": digest})
