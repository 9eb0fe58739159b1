"""Importing align_core loads no more than it needs: no Ray or MLflow, and no torch to read images."""

import subprocess
import sys

import pytest

IMPORT_EVERYTHING = """
import importlib, pkgutil, align_core
for module in pkgutil.walk_packages(align_core.__path__, "align_core."):
    importlib.import_module(module.name)
"""


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [(IMPORT_EVERYTHING, {"ray", "mlflow", "pydantic", "pipelines"}), ("import align_core.images", {"torch"})],
    ids=["all of align_core", "data"],
)
def test_import_stays_light(statement: str, unwanted: set[str]) -> None:
    report = f"import sys\n{statement}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout.split()
    assert "align_core.images" in loaded
    assert not unwanted & set(loaded)
