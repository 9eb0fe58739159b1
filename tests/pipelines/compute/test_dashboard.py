"""`--dashboard`: a local cluster starts Ray's dashboard, and the command says where it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.parser import command_line

PAGE = """
import sys, urllib.request
from pathlib import Path
from pipelines.compute.cluster import connected
from pipelines.run.request import Request

said = []
with connected("local", Request(Path(sys.argv[1])).experiment(), said.append, dashboard=True):
    (line,) = said
    with urllib.request.urlopen(line.removeprefix("Ray's dashboard: "), timeout=60) as answer:
        print(answer.status, "Ray Dashboard" in answer.read().decode())
"""
COMMAND = "import sys; from pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
WITHOUT_PACKAGES = f"import sys; sys.modules['aiohttp_cors'] = None\n{PAGE}"


def python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A process of its own, because this one may be connected to a cluster already."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_page_is_there_while_the_cluster_is(tiny_folder: Path) -> None:
    done = python(PAGE, str(tiny_folder / "tiny.yaml"))
    assert done.stdout == "200 True\n", done.stderr


def test_a_run_prints_the_address_before_it_works(tiny_folder: Path, tmp_path: Path) -> None:
    """This run starts its cluster, and finds then that no worker fits it."""
    where = [str(tiny_folder / "tiny.yaml"), "--output", str(tmp_path / "runs"), "--address", "local"]
    done = python(COMMAND, "run", *where, "--dashboard", "--set", "compute.resources={unheard_of: 1}")
    address, refusal = done.stderr.splitlines()[-2:]
    assert re.fullmatch(r"witness: Ray's dashboard: http://127\.0\.0\.1:\d+", address)
    assert "unheard_of: 1 wanted, 0 there" in refusal and done.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_what_the_dashboard_needs_is_named_where_it_is_missing(tiny_folder: Path) -> None:
    done = python(WITHOUT_PACKAGES, str(tiny_folder / "tiny.yaml"))
    problem = done.stderr.splitlines()[-1]
    assert re.search(
        r"InputError: --dashboard: .*aiohttp_cors.*; `pip install 'ray\[default\]==[\d.]+'` installs it$", problem
    )


@pytest.mark.parametrize("command", ["demo", "run", "align", "craft", "evaluate", "reasons", "report", "tune"])
def test_every_command_that_computes_has_the_flag(command: str) -> None:
    rest = {"demo": [], "tune": ["e.yaml", "--space", "full"]}.get(command, ["e.yaml"])
    assert command_line().parse_args([command, *rest, "--dashboard"]).dashboard
    assert not command_line().parse_args([command, *rest]).dashboard
