"""A GPU that fails twice is left alone, named, and its work is done on another; no GPU is touched here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "pretended_gpus.py"


def became(what: str, folder: Path, number: int, bad: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), what, str(folder), str(number), bad]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    return found


def test_its_chunks_go_elsewhere(tmp_path: Path) -> None:
    found = became("chunks", tmp_path, 2, "0")
    assert found["done"] == list(range(8)) and found["gpus"] == ["1"]
    (why,) = found["broke"]
    assert why.startswith("GPU 0 of node ") and "failed 2 times and is left alone: CUDA error" in why
    assert (found["alone"], found["kept"]) == (["0"], 1)


def test_where_none_is_left_the_run_ends_and_names_it(tmp_path: Path) -> None:
    found = became("chunks", tmp_path, 1, "0")
    assert found["failed"].startswith("no GPU is left: GPU 0 of node ")
    assert found["failed"].endswith("once the cause is mended, the same command resumes")


def test_an_alignment_goes_elsewhere(tmp_path: Path) -> None:
    found = became("alignment", tmp_path, 2, "0")
    assert (found["steps"], found["alone"], found["kept"]) == (4, ["0"], 1)


def test_the_trials_of_a_sweep_go_elsewhere(tmp_path: Path) -> None:
    found = became("sweep", tmp_path, 2, "0")
    assert (found["trials"], found["kept"]) == (["done"] * 3, 1)
    assert [line.partition(" of node ")[0] for line in found["said"]] == ["GPU 0"]
    assert "failed 2 times and is left alone: CUDA error" in found["said"][0]
