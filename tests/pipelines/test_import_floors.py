"""The floors of the house: each package imports from those below it alone, and Ray and MLflow stay in their rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def imported(file: Path) -> Iterator[str]:
    """Top-level names of everything that a module imports, wherever in it, for type checkers too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            yield str(node.module).partition(".")[0]


def importers(package: str, name: str) -> set[str]:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    return {str(file.relative_to(REPOSITORY)) for file in files if name in imported(file)}


@pytest.mark.parametrize("above", ["pipelines", "tune_spaces", "ray", "mlflow", "tests"])
def test_the_science_knows_nothing_of_what_is_above_it(above: str) -> None:
    assert importers("align_core", above) == set()


def test_one_room_knows_mlflow() -> None:
    assert importers("pipelines", "mlflow") == {"pipelines/mlflow_runs.py"}


def test_the_package_does_not_import_its_tests() -> None:
    assert importers("pipelines", "tests") == set()
