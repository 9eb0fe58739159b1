"""Where the report is logged, when, and how often, read back from a real MLflow database.

A server that cannot be reached must not cost a result, and credentials must not be written anywhere.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from empty_store import put_empty_store
from hand_made import CURVE, HandMade, hand_made
from logged import Logged, log

from pipelines.cli import main
from pipelines.storage.credentials import without_credentials
from pipelines.tracking.runs import tracking_uri

OUTCOMES = {"outcomes/aligned/pgd/twin": "111100000000", "outcomes/source/pgd/cousin": "110000000000"}
SECRET = "s3cr3t-p4ss"


@pytest.fixture
def new(tmp_path, monkeypatch) -> HandMade:
    """An experiment without an MLflow database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return hand_made(tmp_path)


@pytest.fixture
def experiment(new) -> HandMade:
    """An experiment with an empty MLflow database."""
    put_empty_store(new.output)
    return new


def test_there_is_an_experiment_with_a_parent_run_and_a_run_per_surrogate(new):
    new.finish(OUTCOMES)
    log(new)
    logged = Logged(new)
    assert sorted(run.info.run_name for run in logged.runs) == ["aligned", "source", "witness"]
    assert {run.data.tags["mlflow.parentRunId"] for run in logged.runs} == {logged.parent.info.run_id}
    assert {run.info.status for run in [*logged.runs, logged.parent]} == {"FINISHED"}
    assert all("version.torch" in run.data.tags for run in logged.runs)


# Logged once


def test_what_was_logged_is_not_logged_again(unlogged):
    log(unlogged)
    before = (unlogged.output / "mlflow.db").read_bytes()
    log(unlogged)
    assert (unlogged.output / "mlflow.db").read_bytes() == before


def test_logging_again_adds_no_run_no_point_and_changes_no_parameter(unlogged):
    log(unlogged)
    before = Logged(unlogged)
    histories = before.histories()
    log(unlogged, again=True)
    after = Logged(unlogged)
    assert {run.info.run_id: run.data.params for run in after.runs} == {
        run.info.run_id: run.data.params for run in before.runs
    }
    assert after.parent.info.run_id == before.parent.info.run_id
    assert after.histories() == histories


def test_a_target_that_is_added_later_adds_metrics_to_the_same_runs(experiment):
    experiment.write(targets=["twin"])
    experiment.finish({key: digits for key, digits in OUTCOMES.items() if key.endswith("twin")})
    log(experiment)
    before = Logged(experiment)
    experiment.write(targets=["twin", "cousin"])
    experiment.finish(OUTCOMES)
    log(experiment)
    after = Logged(experiment)
    assert {run.info.run_id for run in after.runs} == {run.info.run_id for run in before.runs}
    one, two = (logged.named("aligned").data.metrics for logged in (before, after))
    assert one["gain"] == pytest.approx(100 * 4 / 12, abs=1e-4)
    assert two["gain"] == pytest.approx(100 * 1 / 12, abs=1e-4)
    # What was asked is another question, and all surrogates are shown below the newer one.
    assert [run.data.params["targets"] for run in after.parents] == ["twin, cousin", "twin"]
    assert {run.data.tags["mlflow.parentRunId"] for run in after.runs} == {after.parent.info.run_id}
    assert len(after.client.get_metric_history(after.named("aligned").info.run_id, "curve/loss")) == len(CURVE)


def test_another_alignment_is_a_new_run_of_that_surrogate_alone(unlogged):
    log(unlogged)
    before = {run.info.run_id: run.info.run_name for run in Logged(unlogged).runs}
    unlogged.write(align={"temperature": 16})
    unlogged.finish()
    log(unlogged)
    after = {run.info.run_id: run.info.run_name for run in Logged(unlogged).runs}
    assert [name for run, name in after.items() if run not in before] == ["aligned"]
    assert before.items() <= after.items()


def test_a_renamed_network_is_a_new_run_because_parameters_cannot_be_changed(unlogged):
    log(unlogged)
    models = unlogged.content()["models"]
    models["oracle"] = models.pop("seer")
    unlogged.write(models=models, witnesses=["oracle"])
    unlogged.finish()
    log(unlogged)
    runs = [found for found in Logged(unlogged).runs if found.info.run_name == "aligned"]
    assert sorted(found.data.params["witnesses"] for found in runs) == ["oracle", "seer"]


# Where it is logged


def test_the_tracking_uri_comes_from_the_experiment_the_environment_or_the_output_folder(experiment, monkeypatch):
    assert tracking_uri(experiment.blueprint().experiment) == f"sqlite:///{experiment.output}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-the-environment:5000")
    assert tracking_uri(experiment.blueprint().experiment) == "http://of-the-environment:5000"
    experiment.write(tracking="http://of-the-file:5000")
    assert tracking_uri(experiment.blueprint().experiment) == "http://of-the-file:5000"


def test_the_report_is_logged_to_every_new_tracking_uri(unlogged, tmp_path):
    log(unlogged)
    other = f"sqlite:///{put_empty_store(tmp_path / 'other')}"
    unlogged.write(tracking=other)
    log(unlogged)
    assert len(Logged(unlogged, other).runs) == 3


# A server that cannot be reached


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


def check_it_costs_no_result(experiment: HandMade, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    experiment.write(tracking=uri)
    assert main(["report", str(experiment.file), "--quiet"]) == 0
    printed = capfd.readouterr()
    assert "warning: logging to MLflow at" in printed.err
    assert "`witness report --log` sends them" in printed.err
    assert "aligned under pgd" in printed.out
    assert (experiment.report / "report.html").exists()
    experiment.write()
    assert main(["report", str(experiment.file), "--quiet", "--log"]) == 0
    assert "warning" not in capfd.readouterr().err
    assert len(Logged(experiment).runs) == 3


def test_no_server_costs_no_result(experiment, capfd):
    experiment.finish(OUTCOMES)
    check_it_costs_no_result(experiment, "http://127.0.0.1:9", capfd)


@pytest.mark.slow
def test_a_server_that_never_answers_costs_no_result(experiment, silent_server, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # a timeout that the user sets has precedence
    experiment.finish(OUTCOMES)
    check_it_costs_no_result(experiment, f"http://127.0.0.1:{silent_server}", capfd)


@pytest.mark.parametrize("how", ["file", "environment"])
def test_credentials_are_never_shown_or_written(experiment, how, capfd, monkeypatch):
    experiment.finish(OUTCOMES)
    uri = f"http://user:{SECRET}@127.0.0.1:9"
    if how == "file":
        experiment.write(tracking=uri)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    arguments = ["report", str(experiment.file), "--quiet"]
    for more in ([], ["--json"], ["--log"]):
        assert main(arguments + more) == 0
    assert main(["ui", str(experiment.file)]) == 0
    printed = capfd.readouterr()
    assert "http://***@127.0.0.1:9" in printed.err
    assert SECRET not in printed.out + printed.err
    for file in experiment.output.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file
    assert yaml.safe_load((experiment.output / "by-hand" / "experiment.yaml").read_text()).get("tracking") in (
        None,
        "http://***@127.0.0.1:9",
    )


def test_credentials_given_by_set_are_never_shown(experiment, capfd):
    experiment.finish(OUTCOMES)
    uri = f"http://user:{SECRET}@127.0.0.1:9"
    assert main(["report", str(experiment.file), "--quiet", "--set", f"tracking={uri}"]) == 0
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000/path", "http://host:5000/path"),
        ("https://user:pass@host/path", "https://***@host/path"),
        ("https://token@host", "https://***@host"),
        ("postgresql+psycopg://user:p@ss@host/db", "postgresql+psycopg://***@host/db"),
        ("postgresql://host/db?user=me&password=pass", "postgresql://host/db?***"),
        ("sqlite:////a folder/mlflow.db", "sqlite:////a folder/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_credentials_are_masked_in_uris(uri, shown):
    assert without_credentials(uri) == shown


@pytest.mark.slow
def test_a_database_appears_only_when_complete_even_if_the_process_is_killed(new):
    """MLflow itself cannot open a database any more if it was killed while creating the tables."""
    new.finish()
    command = [sys.executable, "-m", "pipelines.cli", "report", str(new.file)]
    process = subprocess.Popen(command, cwd=new.folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    database = new.output / "mlflow.db"
    while not list(new.output.glob("mlflow.db*.part")):
        assert process.poll() is None
        assert not database.exists()
    process.kill()
    process.wait()
    assert not database.exists()
    log(new)
    assert Logged(new).named("aligned")
