"""Whatever is killed, and whenever: the same command then makes the same tables, without a missing or repeated row.

The digits experiment is run 25 times, with one fault each, at a random moment of a random stage: the driver is killed,
one of its worker processes, or a node with everything on it.
"""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from digits_experiment import Finished
from faulty_runs import PATIENCE, assert_whole, kill, start

from pipelines.run.verify import verify_experiment

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("WITNESS_FAULTS", "25"))
FAULTS = ("driver", "process", "node")
ATTEMPTS = 4
SETTINGS = ("align.checkpoint_steps=2", "compute.patience=60", "compute.chunk=20")
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


def begin(finished: Finished, output: Path, machines: Machines) -> subprocess.Popen[bytes]:
    return start(finished, output, "--address", machines.cluster.address, settings=SETTINGS)


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
    return kill(fault, driver, rng)


SIGNS = {"align": "*/.train/*", "craft": "*/adversarial/*", "evaluate": "*/.evaluate/*"}
"""The files that show that a stage has begun."""
STRUCK: Counter[tuple[str, str]] = Counter()


@pytest.mark.parametrize("number", range(RUNS))
def test_the_same_end_after_a_fault(finished: Finished, machines: Machines, tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    machines.fill()
    stage, delay, fault = rng.choice(list(SIGNS)), rng.uniform(0, 4), FAULTS[number % len(FAULTS)]
    driver = begin(finished, tmp_path, machines)
    while not any(tmp_path.glob(SIGNS[stage])):
        assert driver.poll() is None
        time.sleep(0.02)
    time.sleep(delay)
    assert driver.poll() is None, "the run was over before its fault"
    struck = strike(fault, driver, machines, rng)
    STRUCK[stage_of(tmp_path / finished.folder.name), struck] += 1
    codes = [driver.wait(timeout=PATIENCE)]
    while codes[-1] != 0 and len(codes) < ATTEMPTS:
        codes.append(begin(finished, tmp_path, machines).wait(timeout=PATIENCE))
    log = (tmp_path / "log.txt").read_text(errors="replace")
    assert codes[-1] == 0, log
    if struck != "driver":
        assert codes == [0], log  # the run must recover by itself
    assert_whole(finished, tmp_path)
    print(f"\n{number}: {struck}, {delay:.1f} s into {stage}, exit codes {codes}; so far {dict(STRUCK)}")


def test_verify_finds_no_problem_after_a_fault(finished: Finished, machines: Machines, tmp_path: Path) -> None:
    machines.fill()
    driver = begin(finished, tmp_path, machines)
    while not list(tmp_path.glob("*/.evaluate/adversarial/*/*/*-chunk-*")):
        time.sleep(0.05)
        assert driver.poll() is None
    driver.kill()
    driver.wait()
    assert begin(finished, tmp_path, machines).wait(timeout=PATIENCE) == 0
    from pipelines.run.request import Request

    found = verify_experiment(Request(finished.file, overrides=SETTINGS, output=str(tmp_path), quiet=True))
    assert found.findings == []
