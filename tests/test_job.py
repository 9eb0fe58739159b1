"""A sweep on a cluster as the README describes it: submitted with `ray job submit` under a dated id."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_cluster import BIN, running_cluster

sys.path.insert(0, str(Path(__file__).parent / "pipelines"))
TOKEN = "a-token-of-thirty-two-characters-" * 2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The job server's address of a cluster that asks for a token, and an environment that contains the token."""
    with running_cluster(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as running:
        yield running


def submit(address: str, environment: dict[str, str], name: str, *command: str) -> subprocess.CompletedProcess[str]:
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
        done = submit(address, environment, "sweep-2026-11-24", *witness)
        if done.returncode == 0 or time.monotonic() > end or "already exists" in done.stdout + done.stderr:
            break
        time.sleep(3)  # just after its start the job server may not answer yet
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs/digits/sweeps/temperature"
    assert len((folder / "trials.csv").read_text().splitlines()) == 3
    assert (tmp_path / "runs/digits-best-temperature/report/transfer.csv").is_file()
    # An id is accepted only once, so a repeated submission is rejected.
    again = submit(address, environment, "sweep-2026-11-24", *witness)
    assert again.returncode != 0
    wrong_token = {**environment, "RAY_AUTH_TOKEN": "x" * 66}
    assert submit(address, wrong_token, "another", *witness).returncode != 0
