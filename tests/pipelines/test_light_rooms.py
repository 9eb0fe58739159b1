"""The rooms that a command like `witness status` needs are imported without torch, Ray, MLflow or pandas."""

import importlib
import subprocess
import sys

import pytest

from pipelines import experiment, storage, tracking

HEAVY = ("torch", "ray", "mlflow", "pandas", "safetensors.torch", "matplotlib", "sklearn")
SHOW = """
import pkgutil, sys
from importlib import import_module
for room in ("storage", "experiment", "tracking"):
    package = import_module(f"pipelines.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"pipelines.{room}.{module.name}")
import pipelines.failure, pipelines.progress
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


def test_no_module_of_theirs_imports_a_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW, *HEAVY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("room", [storage, experiment, tracking])
def test_what_a_room_exports_is_found_in_its_modules(room) -> None:
    for module, names in room._MODULES.items():
        for name in names:
            assert getattr(room, name) is getattr(importlib.import_module(f"{room.__name__}.{module}"), name)
            assert name in dir(room)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = room.nothing
