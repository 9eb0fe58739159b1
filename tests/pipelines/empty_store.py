"""An empty MLflow database, made once for all tests: that takes seconds, and few of them are about it."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from mlflow import MlflowClient


@cache
def _made() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="store-")  # which ends with the process
    MlflowClient(tracking_uri=f"sqlite:///{folder.name}/mlflow.db").search_experiments()
    return folder


def put_empty_store(folder: Path) -> Path:
    """Puts an empty database `mlflow.db` into a folder, which is made where it is missing; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(f"{_made().name}/mlflow.db", folder))
