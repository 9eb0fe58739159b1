"""Checks before any work that MLflow's store can be used. Otherwise a run would tell after its last stage.

A server that is down is no reason not to start: results are files first, and are logged later.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from align_core.errors import InputError, reason_of
from pipelines.experiment.config import Experiment
from pipelines.storage.credentials import hide_credentials, without_credentials
from pipelines.tracking.runs import DATABASES, client_of, tracking_uri

_PATIENCE = 2.0  # seconds that a database which another process is writing is waited for


def check_tracking(experiment: Experiment) -> None:
    """Raises InputError, and says how to mend it, where the experiment can never be logged to its MLflow store.

    That is the case if the address is of no kind that MLflow knows, if a database cannot be opened or lacks its driver
    here, and if the experiment was deleted in MLflow. Writes nothing.
    """
    uri = tracking_uri(experiment)
    kind = uri.partition("://")[0]
    try:
        if uri.startswith("sqlite:"):
            _check_file(uri, experiment.name)
        elif kind.partition("+")[0] in DATABASES:
            _check_driver(uri)
        else:
            _check_server(uri, experiment.name)
    except InputError as problem:
        key = "tracking" if experiment.tracking or "MLFLOW_TRACKING_URI" not in os.environ else "$MLFLOW_TRACKING_URI"
        raise InputError(f"{key}: {without_credentials(uri)}: {problem}") from problem


def _check_file(uri: str, name: str) -> None:
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or str(path) in (".", ":memory:"):
        raise InputError("what is logged there would be lost; name a file, as sqlite:////path/to/mlflow.db")
    nearest = path.parent
    while not nearest.exists():
        nearest = nearest.parent
    if path.is_dir() or not nearest.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"{nearest} is a file"
        raise InputError(f"{what}; name a file in a folder, as sqlite:////path/to/mlflow.db")
    if not path.exists():
        return
    try:
        address = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, timeout=_PATIENCE, uri=True)) as database:
            database.execute("BEGIN IMMEDIATE")
            has_experiments = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
            deleted = (
                has_experiments
                and database.execute(
                    "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'", (name,)
                ).fetchone()
            )
    except sqlite3.Error as problem:
        if "locked" in str(problem):  # by another run, which will have ended when this one logs
            return
        raise InputError(f"the database cannot be used ({problem}); repair it, or name another file") from problem
    if deleted:
        raise _deleted(uri, name, str(deleted[0]))


def _check_driver(uri: str) -> None:
    """Tries to import what SQLAlchemy, through which MLflow uses databases, needs for one of this kind."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ImportError as problem:
        raise InputError(
            f"the database's driver is missing here ({problem}); install the package that provides it"
        ) from problem
    except (SQLAlchemyError, ValueError) as problem:
        raise InputError(hide_credentials(reason_of(problem), uri)) from problem


def _check_server(uri: str, name: str) -> None:
    try:
        client = client_of(uri)
    except Exception as problem:  # MLflow raises exceptions of many kinds
        raise InputError(hide_credentials(reason_of(problem), uri)) from problem
    try:
        found = client.get_experiment_by_name(name)
    except Exception:  # the server is down, or refuses to answer now
        return
    if found is not None and found.lifecycle_stage == "deleted":
        raise _deleted(uri, name, str(found.experiment_id))


def _deleted(uri: str, name: str, number: str) -> InputError:
    restore = f"MLFLOW_TRACKING_URI={without_credentials(uri)} mlflow experiments restore --experiment-id {number}"
    return InputError(f"the experiment {name} was deleted in MLflow; restore it (`{restore}`), or change `name`")
