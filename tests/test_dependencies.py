"""What the packages import comes with an installation: the tests' own packages hide what a user would miss."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OWN = ("align_core", "pipelines", "tune_spaces")
EXTRAS = ("torchattack", "autoattack", "s3")
"""Those for what is imported only where it is there."""


def foreign_imports(package: str) -> Iterator[tuple[str, Path]]:
    """The foreign packages that the files of one of ours import, anywhere in them."""
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {*OWN}:
                yield name, file


def installed_with(name: str, extra: str, found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Adds the distributions, and extras of them, that an installation brings to those that are found."""
    if (name, extra) not in found:
        found.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another extra than those that are installed here
            lines = []
        for needed in map(Requirement, lines):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                for more in ("", *needed.extras):
                    installed_with(canonicalize_name(needed.name), more, found)
    return found


@pytest.mark.parametrize("package", OWN)
def test_every_package_that_is_imported_comes_with_an_installation(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[tuple[str, str]] = set()
    for line in project["dependencies"] + [own for extra in EXTRAS for own in project["optional-dependencies"][extra]]:
        needed = Requirement(line)
        for more in ("", *needed.extras):
            installed_with(canonicalize_name(needed.name), more, found)
    names = {name for name, _ in found}
    brought_by = metadata.packages_distributions()
    lacking = {
        f"{file.relative_to(ROOT)}: {name}"
        for name, file in foreign_imports(package)
        if name != "_typeshed" and not names & {canonicalize_name(own) for own in brought_by.get(name, [])}
    }
    assert not lacking, "these imports need a package of pyproject.toml's dependencies or extras"
