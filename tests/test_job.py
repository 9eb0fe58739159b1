"""The README's way on a cluster: a sweep submitted with `ray job submit` under a dated id, its result read back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
sys.path.insert(0, str(Path(__file__).parent / "pipelines"))
TOKEN = "a-token-of-thirty-two-characters-" * 2


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(job server's address, environment that may use it) of a cluster of this test's own, with a token."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    page = free_port()
    ports = [f"--port={free_port()}", f"--dashboard-port={page}", f"--dashboard-agent-listen-port={free_port()}"]
    place = f"/tmp/ray-of-{os.getpid()}"  # a socket's path must be short
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=3", f"--temp-dir={place}", *ports]
    with open(tmp_path / "head.txt", "wb") as said:
        head = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{page}", environment
    finally:
        # `ray stop` would end every Ray process of this machine.
        own = psutil.Process(head.pid).children(recursive=True)
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(timeout=60)
        for process in own:
            if process.is_running():
                process.kill()
        psutil.wait_procs(own, timeout=30)


def submitted(address: str, environment: dict[str, str], name: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "ray", "job", "submit", "--address", address, "--submission-id", name, "--", *command],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_is_submitted_as_a_job(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    from digits_experiment import make_weights
    from digits_sweep import write_sweep

    make_weights(tmp_path)
    file = write_sweep(tmp_path, tmp_path)
    address, environment = cluster
    witness = [str(BIN / "witness"), "tune", str(file), "--space", "temperature", "--samples", "2", "--quiet"]
    witness += ["--max-clean-drop", "100"]
    end = time.monotonic() + 120
    while True:
        done = submitted(address, environment, "sweep-2026-11-24", *witness)
        if done.returncode == 0 or time.monotonic() > end or "already exists" in done.stdout + done.stderr:
            break
        time.sleep(3)  # right after the start a submit may not be answered
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs/digits/sweeps/temperature"
    assert len((folder / "trials.csv").read_text().splitlines()) == 3
    assert (tmp_path / "runs/digits-best-temperature/report/transfer.csv").is_file()
    # A dated id runs once.
    again = submitted(address, environment, "sweep-2026-11-24", *witness)
    assert again.returncode != 0
    without = {**environment, "RAY_AUTH_TOKEN": "x" * 66}
    assert submitted(address, without, "another", *witness).returncode != 0
