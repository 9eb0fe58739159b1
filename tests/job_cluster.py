"""A Ray cluster of a test's own, with a job server, as `ray start` makes it."""

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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running_cluster(folder: Path, **variables: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(job server's address, environment that may use it) of a cluster with these variables; it speaks to `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", **variables}
    page = free_port()
    ports = [f"--port={free_port()}", f"--dashboard-port={page}", f"--dashboard-agent-listen-port={free_port()}"]
    place = f"/tmp/ray-of-{os.getpid()}"  # a socket's path must be short
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=3", f"--temp-dir={place}", *ports]
    with open(folder / "head.txt", "wb") as said:
        head = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{page}", environment
    finally:
        # `ray stop` would end every Ray process of this machine.
        own = psutil.Process(head.pid).children(recursive=True)
        head.kill()
        head.wait(timeout=60)
        for process in own:
            if process.is_running():
                process.kill()
        psutil.wait_procs(own, timeout=30)
        shutil.rmtree(place, ignore_errors=True)
