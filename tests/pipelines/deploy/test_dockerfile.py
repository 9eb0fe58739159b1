"""The image is built from this repository, for CPUs or for CUDA, and its smoke test is the demo."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipelines.cli.parser import command_line

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "pipelines/deploy"
LINES = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def copied() -> list[str]:
    return [source for line in instructions("COPY") for source in line.split()[:-1]]


def test_it_copies_all_packages_and_what_the_wheel_is_built_from_and_docker_is_sent_nothing_else() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    assert sorted(copied()) == sorted([*packages, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"])
    sent = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in sent if line.startswith("!")) == sorted(copied())
    assert sent.index("*") < min(index for index, line in enumerate(sent) if line.startswith("!"))


def test_its_python_is_one_that_witness_supports_and_the_constraints_are_for() -> None:
    (base,) = instructions("FROM")
    assert re.match(r"python:3\.11-slim", base)


@pytest.mark.parametrize(
    ("device", "backend", "extras", "code"),
    [("cuda", "of PyPI", "", 0), ("cpu", "cpu", "s3 torchattack", 0), ("rocm", "", "", 2), ("", "", "", 2)],
)
def test_the_build_arguments_say_where_torch_comes_from_and_which_extras(
    device: str, backend: str, extras: str, code: int
) -> None:
    """The instruction is run by a shell in which `uv` only says what it was asked for."""
    (install,) = (line for line in instructions("RUN") if "$DEVICE" in line)
    uv = 'uv() { echo "torch ${UV_TORCH_BACKEND:-of PyPI}: $*"; }'
    environment = {"DEVICE": device, "EXTRAS": extras, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", f"{uv}\n{install}"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert re.findall(r"--extra *(\w*)", done.stdout) == extras.split()
    if code:
        assert done.stderr == f"DEVICE is cuda or cpu, not {device}\n"
    else:
        assert done.stdout.startswith(f"torch {backend}: pip install --system ")
        assert "--constraint constraints.txt --requirement pyproject.toml" in done.stdout


def test_cuda_without_extras_is_the_default() -> None:
    assert instructions("ARG") == ["DEVICE=cuda", "EXTRAS="]


def test_a_container_runs_the_demo_and_not_as_root() -> None:
    program, *arguments = json.loads(instructions("CMD")[0])
    assert program == "witness"
    assert command_line().parse_args(arguments).stage == "demo"
    created = re.search(r"useradd --create-home --uid (\d+)", "\n".join(instructions("RUN")))
    assert created and instructions("USER") == [created[1]] and created[1] != "0"
    assert LINES.index(f"USER {created[1]}") < LINES.index(f"CMD {instructions('CMD')[0]}")
