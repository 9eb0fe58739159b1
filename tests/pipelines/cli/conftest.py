"""What tests of `witness init` share: a current folder with two image sets, and no terminal."""

import io
import sys
from pathlib import Path

import pytest
from starter_file import write_images


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two image sets; no terminal."""
    write_images(tmp_path / "photos" / "train", seed=1)
    write_images(tmp_path / "photos" / "test", seed=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path
