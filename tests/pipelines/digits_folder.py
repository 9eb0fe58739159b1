"""What the folder of the finished digits experiment must hold, and which of its files a command changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.run.request import Request

# The networks whose mean logits are those of each surrogate.
MEMBERS = {
    "source": ["cnn_a"],
    "aligned": ["aligned"],
    "label_only": ["label_only"],
    "witness": ["wide"],
    "ensemble": ["cnn_a", "wide"],
    "aligned_ensemble": ["aligned", "wide"],
    "warm": ["warm"],
    "source-cnn_b": ["cnn_b"],
    "other": ["other"],
}
ATTACKS = {"pgd": 12 / 255, "fgsm": 8 / 255}
TARGETS = {"cnn_c": "same_architecture", "mlp": "cross_family"}
CHUNKS = 3


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Modification time and inode of each file; without lock and logs, which every run writes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not {".lock", "logs"} & set(path.parts))
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_ino) for f in files}


def changed(folder: Path, before: dict[str, tuple[int, int]]) -> set[str]:
    """The first two parts of the path of every file that was added, removed or rewritten since `before`."""
    after = state(folder)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {"/".join(path.split("/")[:2]) for path in paths}


def states(request: Request, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
    """The entries of `witness status --json`, by folder."""
    capsys.readouterr()
    assert main(["status", str(request.source), "--output", str(request.output), "--json", *more]) == 0
    return {entry["folder"]: entry for entry in json.loads(capsys.readouterr().out)["entries"]}
