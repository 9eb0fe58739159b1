"""Work waits for a node that the cluster has still to start, says so, and gives up only after very long."""

import subprocess
import sys

import pytest

from pipelines.compute import starting_nodes
from pipelines.compute.cluster import Worker
from pipelines.compute.starting_nodes import await_node
from pipelines.failure import RunFailed

# A cluster to which a node with the resource that the worker needs comes after some seconds.
LATE = """
import ray, threading, time
from ray.cluster_utils import Cluster
from pipelines.compute import starting_nodes
from pipelines.compute.cluster import Worker
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}, connect=True)
worker = Worker("cpu", threads=1, cpus=1, gpus=0, resources={"late": 1}, wanted=1)
starting_nodes._SAID_EVERY = 1.0
waiting = threading.Thread(target=starting_nodes.await_node, args=(worker, lambda line: print(line, flush=True)))
waiting.start()
time.sleep(3)
assert waiting.is_alive()
cluster.add_node(num_cpus=1, resources={"late": 1})
waiting.join()
starting_nodes.await_node(worker, print)
print("the node is there", flush=True)
ray.shutdown()
cluster.shutdown()
"""


def worker(**resources: float) -> Worker:
    return Worker("cpu", threads=1, cpus=1, gpus=0, resources=resources, wanted=1)


def test_a_node_that_is_up_is_not_waited_for(ray_cluster: None) -> None:
    said: list[str] = []
    await_node(worker(mock_gpu=0.5), said.append)
    assert said == []


def test_a_node_that_never_comes_ends_the_run(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting_nodes, "_SAID_EVERY", 0.2)
    monkeypatch.setattr(starting_nodes, "_LONGEST", 0.5)
    said: list[str] = []
    with pytest.raises(RunFailed, match=r"no node with room for a worker \(CPU: 1, scarce: 1\) in 0 minutes; `ray st"):
        await_node(worker(scarce=1), said.append)
    assert said[0] == "waiting for the cluster to start a node that has room for a worker (CPU: 1, scarce: 1)"


def test_a_node_that_comes_late_is_waited_for_with_a_line_now_and_then() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=180, check=False)
    assert "the node is there" in done.stdout.splitlines(), done.stderr
    first, *others = (line for line in done.stdout.splitlines() if line.startswith("waiting"))
    assert first.startswith("waiting for the cluster to start a node") and others
    assert set(others) == {"waiting for a node (CPU: 1, late: 1) for 0 min"}
