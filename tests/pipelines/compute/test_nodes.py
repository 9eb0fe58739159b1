"""No outcome depends on the number of workers or nodes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from digits_experiment import Finished, assert_same_tables

pytestmark = pytest.mark.slow

RESULTS = ("adversarial", "outcomes", "clean")


@pytest.fixture(scope="module")
def one_node(finished: Finished) -> Iterator[Any]:
    """The address of a cluster with four CPUs on one node."""
    yield from cluster_of(4)


@pytest.fixture(scope="module")
def three_nodes(finished: Finished) -> Iterator[Any]:
    """The address of a cluster of three nodes with one CPU each."""
    yield from cluster_of(1, 1, 1)


def cluster_of(*cpus: int) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "include_dashboard": False})
    for count in cpus[1:]:
        cluster.add_node(num_cpus=count)
    yield cluster.address
    cluster.shutdown()


def assert_same_outcomes(finished: Finished, output: Path, address: str, workers: int) -> None:
    _, folder = finished.copied(output, *RESULTS, "report")
    command = [sys.executable, "-m", "pipelines.cli", "run", str(finished.file), "--output", str(output)]
    command += ["--address", address, "--set", f"compute.workers={workers}"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for name in RESULTS:
        assert_same_tables(finished.folder / name, folder / name)
    assert (folder / "report/transfer.csv").read_bytes() == (finished.folder / "report/transfer.csv").read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_on_one_node(finished: Finished, tmp_path: Path, one_node: str, workers: int) -> None:
    assert_same_outcomes(finished, tmp_path, one_node, workers)


def test_on_three_nodes(finished: Finished, tmp_path: Path, three_nodes: str) -> None:
    assert_same_outcomes(finished, tmp_path, three_nodes, 3)
