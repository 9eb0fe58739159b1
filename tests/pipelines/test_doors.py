"""What each room exports in its `__init__`: the names exist, hide no module, and load nothing until they are used."""

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import pipelines

ROOMS = [module.name for module in pkgutil.iter_modules(pipelines.__path__) if module.ispkg]
HEAVY = ("torch", "ray", "mlflow", "matplotlib", "pyarrow", "pandas", "optuna")


def exports(room: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a room exports: what its `__init__` imports for type checkers."""
    tree = ast.parse(Path(pipelines.__path__[0], room, "__init__.py").read_text())
    for block in (node for node in tree.body if isinstance(node, ast.If)):
        for node in (node for node in ast.walk(block) if isinstance(node, ast.ImportFrom)):
            yield from ((str(node.module), alias.asname or alias.name) for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_exports_something(room):
    package = import_module(f"pipelines.{room}")
    assert len((package.__doc__ or "").split()) > 20
    if room not in ("cli", "recipes", "deploy"):  # the first is a command, the others hold files
        assert {name for _, name in exports(room)} == set(package.__all__)


def test_the_package_exports_what_the_front_page_uses():
    assert {"run_experiment", "load_results", "InputError", "RunFailed", "Busy"} <= set(pipelines.__all__)
    for name in pipelines.__all__:
        assert getattr(pipelines, name).__name__ == name
        assert name not in ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_can_be_imported(room):
    package = import_module(f"pipelines.{room}")
    for module, name in exports(room):
        assert getattr(package, name) is getattr(import_module(module), name)
        assert name in dir(package)


@pytest.mark.parametrize("room", ROOMS)
def test_no_exported_name_is_that_of_a_room_or_of_a_module_in_it(room):
    """Whether such a name means the function or the module would depend on what was imported first."""
    modules = {module.name for module in pkgutil.iter_modules([str(Path(pipelines.__path__[0], room))])}
    assert {name for _, name in exports(room)} & {*ROOMS, *modules} == set()


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match=r"'pipelines\.run' has no attribute 'unknown'"):
        _ = import_module("pipelines.run").unknown


def test_the_rooms_load_nothing_heavy():
    modules = ", ".join(f"pipelines.{room}" for room in ROOMS)
    code = f"import sys, {modules}; print(*({set(HEAVY)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["run.status", "run.forecast", "compute.fill"])
def test_what_only_looks_loads_neither_torch_nor_ray_nor_mlflow(module):
    """`witness status` and `plan` answer within seconds, and the process that joins tables starts without torch."""
    code = f"import sys, pipelines.{module}; print(*({set(HEAVY) - {'pyarrow'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("room", ["storage", "experiment", "tracking"])
def test_no_module_of_a_lower_room_loads_anything_heavy(room):
    names = [f"pipelines.{room}.{m.name}" for m in pkgutil.iter_modules([str(Path(pipelines.__path__[0], room))])]
    heavy = {*HEAVY, "safetensors.torch", "sklearn"} - {"pyarrow"}
    code = f"import sys, {', '.join(names)}; print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
