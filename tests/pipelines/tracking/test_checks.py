"""What can never be logged is told before any work, within seconds, with exit code 2; a server that is down is not."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from empty_store import put_empty_store
from hand_made import HandMade, hand_made
from mlflow import MlflowClient

from pipelines.cli import main
from pipelines.tracking.runs import log_to_mlflow


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a folder").mkdir()
    (tmp_path / "text").write_text("a text that is longer than the header of a database " * 9)
    return hand_made(tmp_path)


def refused(experiment: HandMade, tracking: str, capsys: pytest.CaptureFixture[str]) -> str:
    began = time.monotonic()
    assert main(["run", str(experiment.file), "--set", f"tracking={json.dumps(tracking)}"]) == 2
    assert time.monotonic() - began < 30  # within 5 s on an idle machine; MLflow itself tries for 100 s
    assert not experiment.output.exists()
    said = capsys.readouterr().err
    assert "experiment.yaml: tracking: " in said and "resumes" not in said
    return said


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("/a folder", "a folder is a folder; name a file in a folder"),
        ("/text/mlflow.db", "text is a file; name a file in a folder"),
        ("/text", "file is not a database"),
    ],
)
def test_a_database_that_cannot_be_opened(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], database: str, message: str
) -> None:
    assert message in refused(experiment, f"sqlite:///{experiment.folder}{database}", capsys)


@pytest.mark.parametrize("tracking", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory(experiment: HandMade, capsys: pytest.CaptureFixture[str], tracking: str) -> None:
    assert "what is logged there would be lost" in refused(experiment, tracking, capsys)


@pytest.mark.parametrize(
    ("tracking", "driver"),
    [("postgresql://me:hush-hush@host/a", "psycopg"), ("mysql+pymysql://me:hush-hush@host/a", "pymysql")],
)
def test_a_driver_that_is_missing(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], tracking: str, driver: str
) -> None:
    said = refused(experiment, tracking, capsys)
    assert f"the database's driver is missing here (No module named '{driver}" in said
    assert "install the package" in said and "hush" not in said


def test_an_address_of_the_environment_is_named_as_such(
    experiment: HandMade, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://me:hush-hush@host/a")
    assert main(["run", str(experiment.file)]) == 2
    assert "$MLFLOW_TRACKING_URI: mysql+pymysql://***@host/a: the database's driver" in capsys.readouterr().err


@pytest.mark.parametrize(("tracking", "message"), [("foo://x", "unsupported URI"), ("/tmp/mlruns", "maintenance mode")])
def test_an_address_that_mlflow_does_not_know(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], tracking: str, message: str
) -> None:
    assert message in refused(experiment, tracking, capsys)


def test_an_experiment_that_was_deleted(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that the message names restores it, and then the report is logged."""
    uri = f"sqlite:///{put_empty_store(experiment.folder)}"
    client = MlflowClient(tracking_uri=uri)
    number = client.create_experiment("by-hand", artifact_location=(experiment.folder / "artifacts").as_uri())
    client.delete_experiment(number)
    said = refused(experiment, uri, capsys)
    assert f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {number}" in said
    client.restore_experiment(number)
    experiment.write(tracking=uri)
    experiment.finish()
    assert main(["report", str(experiment.file)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert client.search_runs([number])


def test_a_database_that_another_process_is_writing_is_no_reason_to_refuse(experiment: HandMade) -> None:
    database = put_empty_store(experiment.folder)
    experiment.write(tracking=f"sqlite:///{database}")
    experiment.finish()
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert main(["craft", str(experiment.file)]) == 0
    finally:
        writer.close()


def test_a_server_that_is_down_is_no_reason_to_refuse(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    experiment.write(tracking="http://me:hush-hush@127.0.0.1:1")
    experiment.finish()
    assert main(["report", str(experiment.file)]) == 0
    said = capsys.readouterr().err
    assert "The results are kept; once this is mended, `witness report --log` sends them" in said
    assert "hush" not in said


@pytest.mark.parametrize("kind", ["postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc"])
def test_a_database_server_that_is_down_is_found_at_once(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Whatever its driver: MLflow itself would go on trying for 100 s, at the end of a run."""
    experiment.write(tracking=f"{kind}://me:hush-hush@127.0.0.1:1/a")
    said: list[str] = []
    assert not log_to_mlflow(experiment.blueprint().experiment, said.append, "resend", lambda runs: None)
    assert "failed ([Errno 111] Connection refused)" in said[0] and "hush" not in said[0]


def test_the_database_of_the_output_is_checked_without_importing_mlflow(experiment: HandMade) -> None:
    script = f"""
import sys
from pathlib import Path
from pipelines.run.request import Request, open_blueprint
open_blueprint(Request(Path({str(experiment.file)!r}), quiet=True), to_write=True)
assert not {{"mlflow", "sqlalchemy"}} & set(sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
