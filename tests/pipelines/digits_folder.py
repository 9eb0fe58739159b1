"""What the folder of the finished digits experiment holds, by the experiment file, and which of its files change."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.run.request import Request

# Whose logits a surrogate means.
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
    """When each file was last written, and which file it is; lock and logs are written by every run."""
    files = (path for path in folder.rglob("*") if path.is_file() and not {".lock", "logs"} & set(path.parts))
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_ino) for f in files}


def changed(folder: Path, before: dict[str, tuple[int, int]]) -> set[str]:
    """First two parts of the paths of files that are new, gone or written again."""
    after = state(folder)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {"/".join(path.split("/")[:2]) for path in paths}


def states(request: Request, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
    """What `witness status` says of every folder."""
    capsys.readouterr()
    assert main(["status", str(request.source), "--output", str(request.output), "--json", *more]) == 0
    return {entry["folder"]: entry for entry in json.loads(capsys.readouterr().out)["entries"]}
