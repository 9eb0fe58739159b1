"""A run that is ended by SIGTERM, or whose cluster is lost: what it says, what it leaves, and that it goes on.

Slurm, Docker and Kubernetes end a job with SIGTERM. The digits experiment is ended so at a seeded moment of each of its
stages, also while it writes to MLflow, and started again: the tables are then the same, byte for byte.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from digits_experiment import Finished
from mlflow import MlflowClient
from test_faults import assert_whole

RUNS = int(os.environ.get("WITNESS_FAULTS", "5"))
PATIENCE = 400
# The file that shows that a moment has come, and how long after it the signal comes at most, in seconds.
MOMENTS = {
    "start": ("log.txt", 6.0),  # once it has said something
    "align": ("*/.train/*", 5.0),
    "craft": ("*/adversarial/*", 3.0),
    "evaluate": ("*/clean/*", 3.0),
    "mlflow": ("mlflow.db*", 0.7),
}


@dataclass
class Run:
    """The command in a process of its own, with a local cluster of its own, and every process that it has started."""

    finished: Finished
    output: Path
    processes: set[psutil.Process] = field(default_factory=set)

    def start(self) -> None:
        command = [sys.executable, "-m", "pipelines.cli", "run", str(self.finished.file), "--output", str(self.output)]
        command += ["--set", f"tracking=sqlite:///{self.output}/mlflow.db"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with open(self.output / "log.txt", "wb") as log:
            self.driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def wait_until(self, is_time: Callable[[], bool], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not is_time():
            assert time.monotonic() < end
            self.look()
            time.sleep(0.05)

    def look(self) -> None:
        if self.driver.poll() is None:
            self.processes.update(psutil.Process(self.driver.pid).children(recursive=True))

    def end(self) -> int:
        """Waits for the end of the command, and returns its exit code."""
        self.wait_until(lambda: self.driver.poll() is not None)
        return self.driver.wait()

    def left(self) -> list[str]:
        """The names of its processes that are still there 10 s after its end."""
        _, alive = psutil.wait_procs(self.processes, timeout=10)
        return [process.name() for process in alive if process.is_running()]

    @property
    def said(self) -> str:
        return (self.output / "log.txt").read_text(errors="replace")

    @property
    def log(self) -> str:
        """The newest log of the run's own."""
        return max(self.output.glob("*/logs/*.log")).read_text()


@pytest.fixture
def begun(finished: Finished, tmp_path: Path) -> Iterator[Run]:
    run = Run(finished, tmp_path)
    run.start()
    yield run
    for process in [*run.processes, run.driver]:
        if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
            process.kill()


def assert_ended_by_sigterm(run: Run) -> None:
    assert run.end() == 143, run.said
    last = run.said.splitlines()[-1]
    assert last == "witness: stopped by SIGTERM. What was finished is kept; the same command resumes"
    assert "*** SIGTERM" not in run.said and "Traceback" not in run.said, run.said
    assert run.left() == []
    if list(run.output.glob("*/logs/*.log")):
        assert re.search(r"^\S+ \S+Z ended with KeyboardInterrupt\n\Z", run.log, re.MULTILINE), run.log


def assert_goes_on(run: Run) -> None:
    run.start()
    assert run.end() == 0, run.said
    assert_whole(run.finished, run.output)
    assert not list(run.output.rglob("*.part"))
    client = MlflowClient(tracking_uri=f"sqlite:///{run.output}/mlflow.db")
    experiment = client.get_experiment_by_name(run.finished.folder.name)
    names = [one.info.run_name for one in client.search_runs([experiment.experiment_id])]
    assert len(names) == len(set(names)) == 10  # one for each surrogate, and their parent


@pytest.mark.slow
def test_sigterm_while_chunks_are_crafted(begun: Run) -> None:
    begun.wait_until(lambda: any(begun.output.glob("*/adversarial/*")))
    begun.driver.send_signal(signal.SIGTERM)
    assert_ended_by_sigterm(begun)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RUNS))
def test_the_same_tables_after_sigterm(begun: Run, number: int) -> None:
    rng = random.Random(number)
    moment = list(MOMENTS)[number % len(MOMENTS)]
    sign, longest = MOMENTS[moment]
    begun.wait_until(lambda: "witness: " in begun.said and any(begun.output.glob(sign)))
    delay = rng.uniform(0, longest)
    struck = time.monotonic() + delay
    begun.wait_until(lambda: time.monotonic() > struck)
    assert begun.driver.poll() is None, "the run was over before its fault"
    begun.driver.send_signal(signal.SIGTERM)
    assert_ended_by_sigterm(begun)
    assert_goes_on(begun)
    print(f"\n{number}: SIGTERM {delay:.1f} s into {moment}")


@pytest.mark.slow
def test_sigterm_to_every_process_of_the_run(begun: Run) -> None:
    """As `scancel` sends it: Ray's own processes end at the same time as the command."""
    begun.wait_until(lambda: any(begun.output.glob("*/adversarial/*")))
    for process in [*begun.processes, begun.driver]:
        if isinstance(process, subprocess.Popen) or process.is_running():
            process.send_signal(signal.SIGTERM)
    assert begun.end() not in (0, None)
    assert "*** SIGTERM" not in begun.said, begun.said
    assert begun.left() == []
    assert_goes_on(begun)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["gcs_server", "raylet"])
def test_a_lost_head_or_raylet(begun: Run, lost: str) -> None:
    """Ray itself may end the process then. It has said so before, the log is whole, and the exit code is not 0."""
    begun.wait_until(lambda: any(begun.output.glob("*/adversarial/*")))
    (victim,) = (process for process in begun.processes if process.is_running() and process.name() == lost)
    victim.kill()
    assert begun.end() not in (0, None), begun.said
    told = r"the head of the Ray cluster, \S+, does not answer\." if lost == "gcs_server" else "broke off: "
    assert re.search(rf"Z .*{told}.* the same command resumes", begun.log), begun.log
    assert re.search(rf"^witness: .*{told}.* the same command resumes", begun.said, re.MULTILINE), begun.said
    assert re.search(r"^\S+ \S+Z .*\S\n\Z", begun.log, re.MULTILINE)  # its last line is whole
    assert "Traceback" not in begun.said, begun.said
    assert_goes_on(begun)
