"""A sweep that was killed resumes, with every trial once, and MLflow holds its trials so that they can be compared."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from digits_sweep import write_sweep
from mlflow import MlflowClient
from sweeping import space_file

pytestmark = pytest.mark.slow

PATIENCE = 240


def command(file: Path, space: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "tune", str(file), "--space", space, "--searcher", "grid", *flags]


def stopped(process: subprocess.Popen[bytes], trials: Path, done: int, how: signal.Signals) -> int:
    """Waits until so many trials are done, sends the process a signal, and returns its exit code."""
    end = time.monotonic() + PATIENCE
    while len(done_in(trials)) < done:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    left = [
        child for child in children if "Agent" not in child.name()
    ]  # Ray's agents check only once a minute whether to end
    os.kill(process.pid, how)
    code = process.wait(timeout=PATIENCE)
    psutil.wait_procs(left, timeout=60)
    return code


def done_in(trials: Path) -> dict[str, int]:
    """Returns the modification time of the record of every trial that is done, by fingerprint."""
    return {r.stem: r.stat().st_mtime_ns for r in trials.glob("*.json") if '"done"' in r.read_text()}


@pytest.fixture(scope="module")
def killed_and_resumed(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A sweep that was interrupted, lost its searcher's state, was ended by SIGTERM, was killed, and was resumed.

    Returns its folder, and the time of change of each record that was final at the last kill.
    """
    folder = tmp_path_factory.mktemp("killed")
    file = write_sweep(folder, weights)
    space = space_file(folder, {"align.temperature": {"choices": [1, 2, 4, 8]}, "align.weight": {"choices": [0.5, 2]}})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    sweep = command(file, space, "--max-clean-drop", "100", "--quiet")
    trials = folder / "runs/digits/sweeps/mine/trials"
    with open(folder / "said.txt", "w+b") as said:
        process = subprocess.Popen(sweep, env=environment, stdout=said, stderr=said)
        assert stopped(process, trials, 2, signal.SIGINT) == 130
        said.seek(0)
        assert b"Started a local Ray instance" not in said.read()
        for state in (folder / "runs/digits/.tune").glob("*/searcher-state-*"):
            state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
        process = subprocess.Popen(sweep, env=environment, stdout=said, stderr=said)
        assert stopped(process, trials, 4, signal.SIGTERM) == 128 + signal.SIGTERM
        said.seek(0)
        assert b"stopped by SIGTERM" in said.read()
        process = subprocess.Popen(sweep, env=environment, stdout=said, stderr=said)
        assert stopped(process, trials, 6, signal.SIGKILL) == -signal.SIGKILL
        there = done_in(trials)
        subprocess.run(sweep, env=environment, stdout=said, stderr=said, check=True)
    return folder, there


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "runs/digits/sweeps/mine/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_there_once_and_none_that_was_done_ran_again(
    killed_and_resumed: tuple[Path, dict[str, int]],
) -> None:
    folder, there = killed_and_resumed
    assert 5 <= len(there) < 8
    assert sorted((row["align.temperature"], row["align.weight"]) for row in rows(folder)) == sorted(
        (temperature, weight) for temperature in ("1", "2", "4", "8") for weight in ("0.5", "2")
    )
    assert {row["status"] for row in rows(folder)} == {"done"}
    now = {record: (folder / f"runs/digits/sweeps/mine/trials/{record}.json").stat().st_mtime_ns for record in there}
    assert now == there


def test_mlflow_holds_the_sweep_with_each_trial_as_a_child_once(
    killed_and_resumed: tuple[Path, dict[str, int]],
) -> None:
    folder, _ = killed_and_resumed
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    (sweep,) = (run for run in runs if run.data.tags["witness.kind"] == "sweep")
    trials = [run for run in runs if run.data.tags["witness.kind"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {sweep.info.run_id}
    assert {run.info.status for run in (sweep, *trials)} == {"FINISHED"}
    told = {(r.data.params["align.temperature"], r.data.params["align.weight"]): r.data.metrics for r in trials}
    assert len(told) == len(trials) == 8
    for row in rows(folder):
        metrics = told[row["align.temperature"], row["align.weight"]]
        for name in ("gain", "gain_low", "gain_high", "clean_accuracy", "rate"):
            assert metrics[name] == pytest.approx(float(row[name]), abs=1e-4)
    for run in trials:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "curve/loss")] == list(range(16))
        assert sorted(p.step for p in client.get_metric_history(run.info.run_id, "on the way/gain")) == [4, 8, 12]
        (end,) = client.get_metric_history(run.info.run_id, "gain")
        assert run.info.start_time < end.timestamp == run.info.end_time
    files = {file.path for file in client.list_artifacts(sweep.info.run_id)}
    assert {"trials.csv", "best.yaml", "sweep.png"} <= files
