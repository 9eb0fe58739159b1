"""The benchmarks also run without real weights; this test does not judge what they measure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lines"), [("crafting", 1), ("sweep", 1), ("matrix", 6)])
def test_benchmark_runs_on_random_weights(name: str, lines: int, tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", name],
        cwd=REPOSITORY,
        env=os.environ | {"WITNESS_CIFAR10": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    printed = [line for line in ended.stdout.splitlines() if line.startswith(f"{name}: ")]
    assert ended.returncode == 0, ended.stderr
    assert len(printed) == lines, ended.stdout
