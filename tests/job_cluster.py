"""A Ray cluster with a job server for one test, started by `ray start` as on a real head node."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running_cluster(folder: Path, **variables: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Runs a cluster with three CPUs, and kills its processes afterwards.

    `variables` are added to the cluster's environment, and its output is written to `folder`. Yields the address of the
    job server and an environment for commands that use the cluster.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", **variables}
    dashboard_port = free_port()
    ports = [
        f"--port={free_port()}",
        f"--dashboard-port={dashboard_port}",
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    temporary = f"/tmp/ray-of-{os.getpid()}"  # not `folder`: Ray puts sockets there, and their paths must be short
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=3", f"--temp-dir={temporary}", *ports]
    with open(folder / "head.txt", "wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{dashboard_port}", environment
    finally:
        # Not with `ray stop`, which would end every Ray process of this machine.
        end_with_children(head)
        shutil.rmtree(temporary, ignore_errors=True)


def end_with_children(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and all that it has started, at once."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(timeout=60)
    for child in started:
        if child.is_running():
            child.kill()
    psutil.wait_procs(started, timeout=30)
