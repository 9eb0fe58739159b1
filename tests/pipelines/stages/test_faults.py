"""Whatever is killed, and whenever: the same command then makes the same tables, without a missing or repeated row.

The digits experiment is run 25 times, with one fault each, at a random moment of a random stage: the driver is killed,
one of its worker processes, or a node with everything on it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pytest
from digits_experiment import Finished

from pipelines.run.verify import verify_experiment

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("WITNESS_FAULTS", "25"))
FAULTS = ("driver", "process", "node")
ATTEMPTS = 4
PATIENCE = 400
SETTINGS = ("align.checkpoint_steps=2", "compute.patience=60", "compute.chunk=20")
# The worker processes of a run, by the titles that Ray gives them.
WORKERS = ("ray::MapWorker", "ray::RayTrainWorker", "ray::_RayTrainWorker", "ray::train_here", "ray::_join")
QUICK = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "5"}


@dataclass
class Machines:
    """A cluster of a head and two nodes; `lose_one` kills one of the two, and `fill` replaces it."""

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    def fill(self) -> None:
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=1))

    def lose_one(self, rng: random.Random) -> None:
        self.cluster.remove_node(self.nodes.pop(rng.randrange(len(self.nodes))), allow_graceful=False)


@pytest.fixture(scope="module")
def machines(finished: Finished) -> Iterator[Machines]:
    """A cluster for this module alone."""
    from ray.cluster_utils import Cluster

    os.environ.update(QUICK)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield Machines(cluster)
    cluster.shutdown()
    for name in QUICK:
        del os.environ[name]


def start(finished: Finished, output: Path, address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.cli", "run", str(finished.file), "--output", str(output)]
    command += ["--address", address, *(part for setting in SETTINGS for part in ("--set", setting))]
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS",)}
    with open(output / "log.txt", "ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def stage_of(folder: Path) -> str:
    """The stage that a run has reached, judged by the files in its folder."""
    for stage, pattern in (
        ("report", "report/*"),
        ("evaluate", ".evaluate/*"),
        ("evaluate", "clean/*"),
        ("craft", "adversarial/*"),
    ):
        if any(folder.glob(pattern)):
            return stage
    return "align"


def strike(fault: str, driver: subprocess.Popen[bytes], machines: Machines, rng: random.Random) -> str:
    """Kills the driver, a worker process or a node; returns what was killed."""
    if fault == "node":
        machines.lose_one(rng)
        return "node"
    working = {
        child: child.cmdline()[0].partition("(")[0]
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and any(part.startswith(WORKERS) for part in child.cmdline())
    }
    if fault == "driver" or not working:
        driver.send_signal(signal.SIGKILL)
        return "driver"
    hit = rng.choice(sorted(working, key=lambda child: child.pid))
    hit.kill()
    return working[hit]


def assert_whole(finished: Finished, output: Path) -> None:
    folder = output / finished.folder.name
    for table in ("transfer", "surrogates", "contrasts"):
        assert (folder / f"report/{table}.csv").read_bytes() == (finished.folder / f"report/{table}.csv").read_bytes()
    kinds = ("outcomes/*/*/*", "clean/*", "adversarial/*/*")
    tables = {table.relative_to(folder) for kind in kinds for table in folder.glob(kind)}
    assert tables == {table.relative_to(finished.folder) for kind in kinds for table in finished.folder.glob(kind)}
    for table in (folder / table for table in tables):
        ids = ds.dataset(table).to_table(columns=["image_id"])["image_id"].to_pylist()
        assert ids == [f"{row:05d}" for row in range(1200, 1260)], table
        assert len(list(table.iterdir())) == 1, table


SIGNS = {"align": "*/.train/*", "craft": "*/adversarial/*", "evaluate": "*/.evaluate/*"}
"""The files that show that a stage has begun."""
STRUCK: Counter[tuple[str, str]] = Counter()


@pytest.mark.parametrize("number", range(RUNS))
def test_the_same_end_after_a_fault(finished: Finished, machines: Machines, tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    machines.fill()
    stage, delay, fault = rng.choice(list(SIGNS)), rng.uniform(0, 4), FAULTS[number % len(FAULTS)]
    driver = start(finished, tmp_path, machines.cluster.address)
    while not any(tmp_path.glob(SIGNS[stage])):
        assert driver.poll() is None
        time.sleep(0.02)
    time.sleep(delay)
    assert driver.poll() is None, "the run was over before its fault"
    struck = strike(fault, driver, machines, rng)
    STRUCK[stage_of(tmp_path / finished.folder.name), struck] += 1
    codes = [driver.wait(timeout=PATIENCE)]
    while codes[-1] != 0 and len(codes) < ATTEMPTS:
        codes.append(start(finished, tmp_path, machines.cluster.address).wait(timeout=PATIENCE))
    log = (tmp_path / "log.txt").read_text(errors="replace")
    assert codes[-1] == 0, log
    if struck != "driver":
        assert codes == [0], log  # the run must recover by itself
    assert_whole(finished, tmp_path)
    print(f"\n{number}: {struck}, {delay:.1f} s into {stage}, exit codes {codes}; so far {dict(STRUCK)}")


def test_verify_finds_no_problem_after_a_fault(finished: Finished, machines: Machines, tmp_path: Path) -> None:
    machines.fill()
    driver = start(finished, tmp_path, machines.cluster.address)
    while not list(tmp_path.glob("*/.evaluate/adversarial/*/*/*-chunk-*")):
        time.sleep(0.05)
        assert driver.poll() is None
    driver.kill()
    driver.wait()
    assert start(finished, tmp_path, machines.cluster.address).wait(timeout=PATIENCE) == 0
    from pipelines.run.request import Request

    found = verify_experiment(Request(finished.file, overrides=SETTINGS, output=str(tmp_path), quiet=True))
    assert found.findings == []
