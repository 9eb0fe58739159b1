"""The wheel holds whatever Witness needs, and runs away from the checkout."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("align_core", "pipelines", "tune_spaces")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
KINDS = {".py", ".yaml", ".typed", ".md", ".html", ".css", ".js"}
SETTINGS = (
    "data.test.limit=60", "data.train.take=[0, 200]", "targets=[mlp]", "controls=[]", "align.epochs=1",
    "models.cnn.train.epochs=1", "models.witness_cnn.train.epochs=1", "models.mlp.train.epochs=1",
    "attacks={pgd: {method: pgd, eps: 32/255, step: 8/255, steps: 2}}",
)  # fmt: skip


def files_of(packages: Path) -> set[str]:
    files = (file for package in PACKAGES for file in (packages / package).rglob("*"))
    shipped = (file for file in files if file.suffix in KINDS or file.name.startswith("Dockerfile"))
    return {file.relative_to(packages).as_posix() for file in shipped}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a folder `build` behind, from which the next wheel would take old files."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / file, source)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, "dist"], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_every_module_recipe_space_and_readme(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    needed = files_of(REPOSITORY)
    assert {"pipelines/recipes/demo.yaml", "tune_spaces/temperature.yaml", "align_core/py.typed"} <= needed
    assert {"pipelines/deploy/Dockerfile", "pipelines/deploy/rayjob.yaml"} <= needed
    assert held >= needed
    assert {name for name in held - needed if ".dist-info/" not in name} == set()


def test_the_metadata_names_versions_licence_and_maintainers_and_no_address(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        header = archive.read(name).decode().partition("\n\n")[0].splitlines()
    assert {"Author: Witness maintainers", "License-Expression: Apache-2.0", "Requires-Python: >=3.11"} <= set(header)
    assert not [line for line in header if "://" in line]


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The Python of an environment that holds the wheel, and sees everything else that this one holds.

    The line of a .pth file adds this environment's packages behind the wheel's. The .pth files among those packages,
    one of which would put the checkout of an editable installation on the path, are not read.
    """
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    ours = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True)
    return python


def ran(python: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the environment that was run in a folder of its own, without the checkout on PYTHONPATH."""
    folder.mkdir(exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [str(python.with_name(command[0])), *command[1:]]
    return subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_the_installed_command_finds_its_recipes_and_spaces(installed: Path, tmp_path: Path) -> None:
    """A sweep over a space that does not exist reads the whole experiment, and then names the spaces that do."""
    where = "import pipelines, tune_spaces; print(pipelines.__path__[0], tune_spaces.__path__[0])"
    folders = [Path(folder) for folder in ran(installed, tmp_path / "empty", "python", "-c", where).stdout.split()]
    assert len(folders) == 2
    assert all(folder.is_relative_to(installed.parents[1]) for folder in folders)
    recipe = str(folders[0] / "recipes" / "demo.yaml")
    refused = ran(installed, tmp_path / "empty", "witness", "tune", recipe, "--space", "nowhere", "--samples", "1")
    assert refused.returncode == 2, refused.stderr
    assert "full, hint, input_gradient, l1," in refused.stderr


@pytest.mark.slow
def test_a_demo_of_sixty_images_runs_from_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """The recipe's factories lie in the environment's site-packages here, and must reach the workers all the same."""
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    done = ran(installed, tmp_path / "empty", "witness", "demo", *changes)
    assert done.returncode == 0, done.stderr
    assert "aligned" in done.stdout
    with (tmp_path / "empty/runs/demo/report/transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["surrogate"] for row in rows} >= {"source", "aligned"}
    assert {row["target"] for row in rows} >= {"mlp", "(mean)"}
    assert max(int(row["n"]) for row in rows) <= 60
