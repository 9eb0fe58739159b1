"""An output folder that was moved or copied opens with its own artifacts, and a copy leaves the original alone."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from empty_store import put_empty_store
from mlflow import MlflowClient

from pipelines.tracking.locations import follow_moved_artifacts


def filled(folder: Path, artifacts: Path) -> str:
    """A database in `folder` with a run, a registered model and a file, all below `artifacts`; returns the run's id."""
    put_empty_store(folder)
    client = client_in(folder)
    run = client.create_run(client.create_experiment("trial", artifacts.as_uri())).info.run_id
    client.log_text(run, "as it was", "note.txt")
    client.create_registered_model("kept")
    client.create_model_version("kept", f"{artifacts.as_uri()}/{run}/artifacts", run)
    return str(run)


def client_in(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db", registry_uri=f"sqlite:///{folder}/mlflow.db")


def opened(folder: Path) -> list[str]:
    """What is said when the database of a folder is made to follow."""
    said: list[str] = []
    follow_moved_artifacts(f"sqlite:///{folder}/mlflow.db", said.append)
    return said


def test_a_moved_folder_opens_with_its_artifacts(tmp_path: Path) -> None:
    old, new = tmp_path / "an old place", tmp_path / "a % new place"
    run = filled(old, old / "mlartifacts" / "trial")
    old.rename(new)
    assert opened(new) == [f"{new}/mlflow.db was moved or copied: it refers to the artifacts beside it now"]
    client = client_in(new)
    assert Path(client.download_artifacts(run, "note.txt")).read_text() == "as it was"
    assert client.get_model_version("kept", "1").source == f"{(new / 'mlartifacts' / 'trial').as_uri()}/{run}/artifacts"
    assert Path(client.list_artifacts(run)[0].path).name == "note.txt"
    assert not old.exists()
    assert opened(new) == []


def test_a_copy_writes_beside_itself_and_not_into_the_original(tmp_path: Path) -> None:
    old, new = tmp_path / "original", tmp_path / "copy"
    run = filled(old, old / "mlartifacts" / "trial")
    shutil.copytree(old, new)
    before = (old / "mlflow.db").read_bytes()
    opened(new)
    client = client_in(new)
    # The run's own repository would be the one that this process has opened already.
    assert client.get_run(run).info.artifact_uri == f"{(new / 'mlartifacts' / 'trial').as_uri()}/{run}/artifacts"
    later = client.create_run(client.get_run(run).info.experiment_id).info.run_id
    client.log_text(later, "new", "note.txt")
    assert (new / "mlartifacts" / "trial" / later / "artifacts" / "note.txt").read_text() == "new"
    assert [folder.name for folder in (old / "mlartifacts" / "trial").iterdir()] == [run]
    assert (old / "mlflow.db").read_bytes() == before
    assert Path(client_in(old).download_artifacts(run, "note.txt")).read_text() == "as it was"
    assert opened(old) == []


def test_artifacts_that_lie_elsewhere_stay_where_they_are(tmp_path: Path) -> None:
    for elsewhere in (tmp_path / "of others" / "mlartifacts" / "trial", tmp_path / "another" / "trial"):
        folder = tmp_path / elsewhere.parts[-2]
        run = filled(folder, elsewhere)
        assert opened(folder) == []
        assert Path(client_in(folder).download_artifacts(run, "note.txt")).read_text() == "as it was"


def test_a_database_that_cannot_be_written_is_said_and_kept(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    filled(old, old / "mlartifacts" / "trial")
    old.rename(new)
    before = (new / "mlflow.db").read_bytes()
    holder = sqlite3.connect(new / "mlflow.db", isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        (line,) = opened(new)
    finally:
        holder.close()
    assert line.startswith(f"warning: {new}/mlflow.db was moved, and still refers to artifacts at its old place (")
    assert (new / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/at/all/mlflow.db", "postgresql://host/db"])
def test_stores_without_a_file_are_left_alone(uri: str) -> None:
    said: list[str] = []
    follow_moved_artifacts(uri, said.append)
    assert said == []
