"""MLflow is imported with telemetry switched off, and its database appears with all tables at once."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.experiment.config import load_experiment
from pipelines.tracking.runs import log_to_mlflow

# Prints what the variables are when mlflow is imported for the first time.
WATCHED = """
import os, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "mlflow":
            print(os.environ.get("MLFLOW_DISABLE_TELEMETRY"), os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT"))

sys.meta_path.insert(0, Watch())
from pipelines.experiment.config import load_experiment
from pipelines.tracking.runs import log_to_mlflow
assert log_to_mlflow(load_experiment(Path(sys.argv[1])), print, "", lambda runs: None)
"""


@pytest.fixture
def experiment_file(tiny_folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text((tiny_folder / "tiny.yaml").read_text() + f"tracking: sqlite:///{tmp_path}/new/mlflow.db\n")
    return file


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "true 5"), pytest.param({"MLFLOW_DISABLE_TELEMETRY": "false"}, "false 5", marks=pytest.mark.slow)],
)
def test_mlflow_is_imported_after_its_variables_are_set(
    experiment_file: Path, own: dict[str, str], expected: str
) -> None:
    """Also where the database does not exist yet: creating it is the first use of MLflow in a run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | own
    command = [sys.executable, "-c", WATCHED, str(experiment_file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [expected]


def test_an_interrupted_creation_leaves_no_database(experiment_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(experiment_file)
    folder = experiment_file.parent / "new"

    def interrupt(source: Path, destination: Path) -> None:
        assert sqlite3.connect(source).execute("select count(*) from experiments").fetchone() == (1,)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", interrupt)
        with pytest.raises(KeyboardInterrupt):
            log_to_mlflow(experiment, print, "", lambda runs: None)
    assert list(folder.iterdir()) == []
    assert log_to_mlflow(experiment, print, "", lambda runs: None)
    assert [file.name for file in folder.iterdir()] == ["mlflow.db"]


def test_a_failure_is_a_warning_without_credentials(experiment_file: Path) -> None:
    file = experiment_file
    file.write_text(file.read_text().replace("sqlite:///", "http://me:secret@127.0.0.1:1/#"))
    messages: list[str] = []
    assert not log_to_mlflow(load_experiment(file), messages.append, "send them later", lambda runs: None)
    (line,) = messages
    assert line.startswith("warning: logging to MLflow at http://***@127.0.0.1:1/")
    assert line.endswith("). The results are kept; once this is mended, send them later")
    assert "secret" not in line
