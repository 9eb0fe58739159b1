"""constraints.txt agrees with pyproject.toml, and serves every machine and Python that Witness supports."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
LINES = [
    line
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]
PINNED = {canonicalize_name(pin.name): pin for pin in map(Requirement, LINES)}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_every_line_pins_one_version_and_names_no_host_or_path() -> None:
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( ; [a-zA-Z0-9_.'<>=! ()]+)?", line), line
    assert "://" not in (REPOSITORY / "constraints.txt").read_text()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
def test_every_requirement_is_pinned_to_a_version_that_it_admits(requirement: str, python: str) -> None:
    wanted = Requirement(requirement)
    pin = PINNED[canonicalize_name(wanted.name)]
    (pinned,) = pin.specifier
    assert wanted.specifier.contains(pinned.version)
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    assert pin.marker is None or pin.marker.evaluate(here)


def test_what_holds_others_back_is_not_pinned() -> None:
    assert "torchattacks" not in PINNED
