"""Runs of the digits experiment in processes of their own, which tests kill or disturb, and what they must end with."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pyarrow.dataset as ds
from digits_experiment import Finished

PATIENCE = 400
# The worker processes of a run, by the titles that Ray gives them.
WORKERS = (
    "ray::MapWorker",
    "ray::RayTrainWorker",
    "ray::_RayTrainWorker",
    "ray::fine_tune_alone",
    "ray::Map(",
    "ray::Joiner",
)


def start(
    finished: Finished,
    output: Path,
    *options: str,
    command: str = "run",
    settings: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts `witness COMMAND` on the digits experiment; it writes into `output`, its messages into log.txt there."""
    arguments = [sys.executable, "-m", "pipelines.cli", command, str(finished.file), "--output", str(output), *options]
    arguments += [part for setting in settings for part in ("--set", setting)]
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with open(output / "log.txt", "ab") as log:
        return subprocess.Popen(arguments, env=own | (environment or {}), stdout=log, stderr=log)


def wait_for(driver: subprocess.Popen[bytes], condition: Callable[[], bool], message: str) -> None:
    """Polls until the condition holds, while the run goes on."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert driver.poll() is None and time.monotonic() < end, message
        time.sleep(0.01)


def workers() -> dict[psutil.Process, str]:
    """The worker processes that are at work below this process, and their titles."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            title = child.cmdline()[:1]
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if title and title[0].startswith(WORKERS):
            found[child] = title[0].partition("(")[0]
    return found


def kill(what: str, driver: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Kills the driver, or one of the worker processes if there is any; returns what was killed."""
    working = workers()
    if what == "driver" or not working:
        driver.send_signal(signal.SIGKILL)
        return "driver"
    hit = rng.choice(sorted(working, key=lambda child: child.pid))
    hit.kill()
    return working[hit]


def assert_whole(finished: Finished, output: Path) -> None:
    """Asserts that the tables are the finished experiment's, byte for byte, and every image is in each table once."""
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


def assert_same_networks(finished: Finished, output: Path) -> None:
    """Asserts that every network that was made here has the finished experiment's weights, byte for byte."""
    weights = {file.relative_to(finished.folder) for file in finished.folder.glob("*/*/model.safetensors")}
    assert weights
    for file in weights:
        assert (output / finished.folder.name / file).read_bytes() == (finished.folder / file).read_bytes(), file
