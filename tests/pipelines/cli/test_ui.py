"""`witness ui`: MLflow's own page, until it is ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

import pytest
from hand_made import hand_made
from logged import Logged

from pipelines.cli import main
from pipelines.run.command import run
from pipelines.run.request import Request

LIMIT = 300  # seconds: half a minute on a quiet machine


def comes_true(condition: Callable[[], bool]) -> bool:
    start = time.monotonic()
    while not condition() and time.monotonic() - start < LIMIT:
        time.sleep(0.5)
    return condition()


def answer(url: str) -> str:
    """What is served there; nothing where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def is_gone(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_the_page_is_served_from_the_experiments_store_and_nothing_stays_when_it_is_ended(tmp_path):
    experiment = hand_made(tmp_path)
    experiment.finish()
    assert run(Request(experiment.file, quiet=True), ["report"]).logged
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = f"http://127.0.0.1:{port}/"
    with open(tmp_path / "said.txt", "w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "ui", str(experiment.file), "--port", str(port)],
            cwd=tmp_path, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        assert comes_true(lambda: bool(answer(page)) or server.poll() is not None)
        said_so_far = (tmp_path / "said.txt").read_text()
        assert "<title>MLflow</title>" in answer(page), said_so_far
        assert '"by-hand"' in answer(f"{page}ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=by-hand")
        route = (
            r"MLflow, until Ctrl-C: http://127\.0\.0\.1:\d+/#/experiments/(\d+)/runs\?workflowType=machine_learning\n"
        )
        assert comes_true(lambda: re.search(route, (tmp_path / "said.txt").read_text()) is not None)
        (number,) = re.findall(route, (tmp_path / "said.txt").read_text())
        assert number == Logged(experiment).experiment.experiment_id
        server.terminate()
        assert comes_true(lambda: server.poll() is not None and is_gone(server.pid))
        assert not answer(page)
    finally:
        if not is_gone(server.pid):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_server_that_has_its_page_already_is_named(tmp_path, capsys):
    experiment = hand_made(tmp_path, tracking="http://127.0.0.1:9")
    assert main(["ui", str(experiment.file)]) == 0
    assert capsys.readouterr().out == "MLflow runs at http://127.0.0.1:9\n"


def test_a_port_on_which_something_listens_is_refused(tmp_path, capsys):
    experiment = hand_made(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["ui", str(experiment.file), "--port", str(port)]) == 2
    assert f"--port: something listens on port {port} already; choose another" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http", "\N{ARABIC-INDIC DIGIT THREE}"])
def test_what_is_no_port_is_refused_before_a_server_starts(port, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["ui", "experiment.yaml", f"--port={port}"])
    assert "is no port: a number from 1 to 65535" in capsys.readouterr().err
