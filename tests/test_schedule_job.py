"""`witness schedule` with real jobs on a real cluster: due every minute, killed while a job runs, and started again."""

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from job_cluster import BIN, running_cluster
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parent / "pipelines"))
TOKEN = "a-token-of-thirty-two-characters-" * 2
COUNTING_WITNESS = """#!/bin/sh
python -c 'import json, os
print(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])' >> {ran}
exec {witness} "$@"
"""


class Command:
    """A process that runs `witness schedule`, whose output goes to two files."""

    def __init__(self, file: Path, environment: dict[str, str], name: str) -> None:
        self.out, self.err = file.with_name(f"{name}-out.txt"), file.with_name(f"{name}-err.txt")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            command = [BIN / "witness", "schedule", file, "--json"]
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, cwd=file.parent)

    @property
    def has_started(self) -> bool:
        """Whether it has passed its checks and submits what is due."""
        return "until Ctrl-C" in self.err.read_text()

    def wait_until_started_or_ended(self) -> None:
        wait_for(lambda: self.has_started or self.process.poll() is not None, 120)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=60)


def wait_for(is_so: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.5)


def start(file: Path, environment: dict[str, str], name: str, commands: list[Command]) -> Command:
    """Starts the schedule, again and again until the job server answers its checks."""
    end = time.monotonic() + 120
    while True:
        command = Command(file, environment, name)
        commands.append(command)
        command.wait_until_started_or_ended()
        if command.has_started:
            return command
        error = command.err.read_text()
        assert (command.process.returncode, time.monotonic() < end) == (2, True), error
        assert "entries.all.address: no job server could be reached at " in error


@pytest.fixture
def commands() -> Iterator[list[Command]]:
    """The commands that the test starts; they are killed when it ends."""
    started: list[Command] = []
    yield started
    for command in started:
        command.process.kill()
        command.process.wait()


@pytest.mark.slow
def test_every_minute_runs_at_most_once_although_a_scheduler_is_killed(tmp_path: Path, commands: list[Command]) -> None:
    from hand_made import hand_made

    (tmp_path / "experiments").mkdir()
    (tmp_path / "bin").mkdir()
    experiment = hand_made(tmp_path / "experiments")
    ran = tmp_path / "ran.txt"
    ran.touch()
    witness = tmp_path / "bin" / "witness"
    witness.write_text(COUNTING_WITNESS.format(ran=ran, witness=BIN / "witness"))
    witness.chmod(stat.S_IRWXU)
    path = f"{witness.parent}:{BIN}:/usr/bin:/bin"
    with running_cluster(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN, PATH=path) as (address, environment):
        # The experiment's folder is sent, with the module of its factory; the job really aligns and crafts.
        entry = {"cron": "* * * * *", "experiment": "experiments/experiment.yaml"}
        file = tmp_path / "schedule.yaml"
        file.write_text(yaml.safe_dump({"name": "ops", "address": address, "entries": {"all": entry}}))
        killed = start(file, environment, "killed", commands)
        wait_for(lambda: len(ran.read_text().splitlines()) == 1, 120)
        assert not (experiment.report / "transfer.csv").exists()
        killed.end(signal.SIGKILL)
        two = [start(file, environment, name, commands) for name in ("one", "other")]
        folder = experiment.output / ".schedules/ops/all"

        def ended() -> list[dict[str, object]]:
            runs = [json.loads(record.read_text()) for record in sorted(folder.glob("*.json"))]
            return [run for run in runs if run["status"] != "running"]

        def reported() -> list[str]:
            """The minutes whose end one of the two schedulers has printed, which is the last thing that it does."""
            lines = [line for command in two for line in command.out.read_text().splitlines()]
            return sorted(json.loads(line)["minute"] for line in lines)

        wait_for(lambda: len(reported()) >= 3, 400)
        assert [command.end(signal.SIGINT) for command in two] == [130, 130]

        jobs = ran.read_text().split()
        assert len(jobs) >= 3
        assert len(set(jobs)) == len(jobs)  # nothing ran twice
        assert all(job.endswith("Z-1") for job in jobs)  # and no minute was tried twice
        for run in ended():
            assert run["status"] == "succeeded"
            (job,) = run["jobs"]
            assert job["id"] == f"ops-all-{run['minute']}-1"
            assert job["id"] in jobs
        assert (experiment.report / "transfer.csv").is_file()
        assert ended()[-1]["changes"] == {"new": [], "moved": []}
        assert set(reported()) <= {run["minute"] for run in ended()}
    client = MlflowClient(tracking_uri=f"sqlite:///{experiment.output}/mlflow.db")
    known = client.get_experiment_by_name("by-hand")
    logged = client.search_runs([known.experiment_id], "tags.`witness.kind` = 'schedule'")
    names = [run.info.run_name for run in logged]
    assert len(set(names)) == len(names)  # no job was logged twice
    assert set(names) >= {f"ops-all-{minute}-1" for minute in reported()}
