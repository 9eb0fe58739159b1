"""The doors of the rooms: public names are there, and nothing heavy is imported to reach the door."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pipelines

ROOMS = sorted(
    folder.name for folder in Path(pipelines.__file__).parent.iterdir() if (folder / "__init__.py").is_file()
)
HEAVY = {"torch", "ray", "mlflow", "matplotlib", "pandas", "torchvision", "timm"}


@pytest.mark.parametrize("package", ["pipelines", *(f"pipelines.{room}" for room in ROOMS)])
def test_a_door_says_what_is_behind_it_and_opens(package: str) -> None:
    module = import_module(package)
    assert module.__doc__
    assert len(module.__doc__.split()) > 10
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None
        assert name not in ROOMS  # a function of a room's name would hide the room


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'pipelines' has no attribute 'nothing'"):
        _ = pipelines.nothing
    with pytest.raises(ImportError):
        from pipelines import nothing  # noqa: F401


def test_no_door_imports_anything_heavy() -> None:
    statement = "; ".join(f"import pipelines.{room}" for room in ROOMS)
    report = f"import sys\nimport pipelines\n{statement}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & HEAVY == set()
    assert "pipelines.storage" in loaded


@pytest.mark.parametrize("module", ["pipelines.run.status", "pipelines.run.forecast"])
def test_what_only_looks_needs_neither_torch_nor_ray_nor_mlflow(module: str) -> None:
    report = f"import sys\nimport {module}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & HEAVY == set()
