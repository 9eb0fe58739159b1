"""The floors of the house and the rooms of the engine: each imports from those below it alone, and MLflow has one room.

A room that is added has to be given its place here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("align_core", "tune_spaces", "pipelines")
ROOMS = (
    "exports", "environment", "failure", "storage", "progress", "experiment", "tracking", "compute", "stages",
    "report", "run", "export", "sweep", "schedule", "cli",
)  # fmt: skip
# Beside what its place in the order says: a schedule submits `witness run` to a cluster, and needs none of its code.
FORBIDDEN = {"schedule": {"run", "sweep"}}
TOP = {"__init__", "cli"}  # both lead to everything: the one for Python, the other for the command line
APART = {"recipes", "deploy"}  # experiments that ship, with the factories that they name; and files for clusters


def imported_modules(source: str) -> Iterator[str]:
    """Dotted names of everything that a module imports, wherever in it, for type checkers too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(package: str, name: str) -> set[str]:
    """Files of a package that import something of the top-level package `name`."""
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    return {
        str(file.relative_to(REPOSITORY))
        for file in files
        if any(module.partition(".")[0] == name for module in imported_modules(file.read_text()))
    }


def room_of(module: str) -> str | None:
    """The room of a dotted module name; None where it is outside `pipelines`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipelines" and len(parts) > 1 else None


def wrong_ways(room: str, source: str) -> list[str]:
    """The rooms that a module of `room` must not import from, and does."""
    if room in TOP:
        return []
    allowed = {room, *ROOMS[: ROOMS.index(room)]} - FORBIDDEN.get(room, set())
    used = {room_of(module) for module in imported_modules(source)} - {None}
    return sorted(str(name) for name in used if name not in allowed)


@pytest.mark.parametrize("above", ["pipelines", "tune_spaces", "ray", "mlflow", "tests"])
def test_the_science_knows_nothing_of_what_is_above_it(above: str) -> None:
    assert importers("align_core", above) == set()


def test_the_search_spaces_are_data() -> None:
    assert importers("tune_spaces", "pipelines") | importers("tune_spaces", "align_core") == set()


def test_one_room_knows_mlflow() -> None:
    assert {Path(file).parts[1] for file in importers("pipelines", "mlflow")} == {"tracking"}


def test_no_package_imports_its_tests() -> None:
    assert importers("pipelines", "tests") | importers("tune_spaces", "tests") == set()


def test_every_room_has_its_place() -> None:
    found = {entry.stem for entry in (REPOSITORY / "pipelines").iterdir() if entry.suffix == ".py" or is_package(entry)}
    assert found == {*ROOMS, *TOP, *APART}


def is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in TOP])
def test_a_room_imports_from_those_below_it_alone(room: str) -> None:
    folder = REPOSITORY / "pipelines" / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files
    assert {str(file): ways for file in files if (ways := wrong_ways(room, file.read_text()))} == {}


@pytest.mark.parametrize(
    ("room", "source", "ways"),
    [
        ("storage", "from pipelines.experiment.config import Experiment", ["experiment"]),
        ("storage", "def f():\n    import pipelines.run.command", ["run"]),
        ("compute", "from pipelines.stages import inspect", ["stages"]),
        ("schedule", "from pipelines.run.request import Request", ["run"]),
        ("schedule", "from pipelines.cli import main", ["cli"]),
        ("run", "from pipelines import run_experiment", ["run_experiment"]),
        ("run", "from pipelines.report.page import read_report", []),
    ],
)
def test_an_arrow_upward_is_found(room: str, source: str, ways: list[str]) -> None:
    assert wrong_ways(room, source) == ways


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_no_file_is_too_long_to_read(package: str) -> None:
    lines = {file: len(file.read_text().splitlines()) for file in (REPOSITORY / package).rglob("*.py")}
    assert lines
    assert {str(file): count for file, count in lines.items() if count > 400} == {}


def test_no_file_is_named_after_its_room() -> None:
    rooms = [entry for entry in (REPOSITORY / "pipelines").iterdir() if is_package(entry)]
    assert [str(file) for room in rooms for file in room.glob("*.py") if file.stem == room.name] == []
