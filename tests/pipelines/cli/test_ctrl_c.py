"""Ctrl-C, once or again and again, as a terminal sends it: one message, exit code 130, and no process is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hand_made import hand_made

STOPPED = "witness: stopped. What was finished is kept; the same command resumes"
# Libraries may hang where they end, code may keep an interrupt to itself, and a user may press the keys again.
NETS = """
import atexit, os, signal, time

atexit.register(time.sleep, 100)

def impatient():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
    finally:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

def deaf():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
    except KeyboardInterrupt:
        time.sleep(100)
"""
QUICK = "import sys; from pipelines.cli import ending, main; ending._PATIENCE_S = 1.0; sys.exit(main())"


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", QUICK, "run", str(hand_made(folder).file), *more]


@pytest.mark.parametrize("net", ["impatient", "deaf"])
def test_the_process_ends(tmp_path: Path, net: str) -> None:
    (tmp_path / "sending_nets.py").write_text(NETS)
    more = ("--set", f"models.near={{factory: 'sending_nets:{net}', weights: near.safetensors}}")
    done = subprocess.run(command(tmp_path, *more), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert STOPPED in done.stderr.splitlines()
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["raylet", "ray::"])
def test_again_and_again_beside_a_cluster(tmp_path: Path, moment: str) -> None:
    """While it starts, and while its workers work; the cluster's own processes are in the group, too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = [sys.executable, "-m", "pipelines.cli", "run", str(hand_made(tmp_path).file)]
    with (
        open(tmp_path / "said.txt", "wb") as said,
        subprocess.Popen(run, env=environment, stdout=said, stderr=said, start_new_session=True) as process,
    ):
        started: list[psutil.Process] = []
        end = time.monotonic() + 120
        while not any(own.is_running() and own.name().startswith(moment) for own in started):
            assert time.monotonic() < end and process.poll() is None, (tmp_path / "said.txt").read_text()
            time.sleep(0.05)
            started = psutil.Process(process.pid).children(recursive=True)
        try:
            for _ in range(4):
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.3)
            code = process.wait(60)
        finally:
            process.kill()
    lines = (tmp_path / "said.txt").read_text().splitlines()
    assert (code, lines[-1]) == (130, STOPPED), lines
    assert all(line.startswith("witness: ") for line in lines), lines
    _, left = psutil.wait_procs(started, timeout=10)
    assert left == []
