"""Workers reuse the memory of freed tensors, which the C library would return and fault in again for every tensor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import hand_made

WORK = """
import resource, sys, threading
from pathlib import Path
import ray
from pipelines.compute.cluster import connected
from pipelines.run.request import Request

@ray.remote(num_cpus=0)
def faults():
    def work():
        for _ in range(20):
            b"x" * 40_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)  # because Ray Data's actors work in threads
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with connected(sys.argv[2] or None, Request(Path(sys.argv[1])).experiment(), print):
    print(ray.get(faults.remote()))
"""
ONCE = 40_000_000 // 4096


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.slow
def test_a_worker_faults_memory_in_once(where: str, ray_cluster: None, tmp_path: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address if where == "there" else ""
    command = [sys.executable, "-c", WORK, str(hand_made(tmp_path).file), address]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 * ONCE  # without the setting it would be twenty times ONCE
