"""How a command ends: its exit code, and one message whose advice is true."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import hand_made

from pipelines.cli import commands, main
from pipelines.stages import blueprint

SENDS = """
import os, signal, time

def net():
    os.kill(os.getpid(), signal.{name})
    time.sleep(9)
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("name", "code", "message"), [("SIGINT", 130, "stopped"), ("SIGTERM", 143, "stopped by SIGTERM")]
)
def test_a_signal_ends_a_command_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, message: str
) -> None:
    (tmp_path / "sending_net.py").write_text(SENDS.format(name=name))
    experiment = hand_made(tmp_path)
    factory = "models.near={factory: 'sending_net:net', weights: near.safetensors}"
    assert main(["run", str(experiment.file), "--set", factory]) == code
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == f"witness: {message}. What was finished is kept; the same command resumes"
    assert "Traceback" not in said and not experiment.output.exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    del sys.modules["sending_net"]


def test_a_command_that_only_looks_has_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sending_net.py").write_text(SENDS.format(name="SIGTERM"))
    factory = "models.near={factory: 'sending_net:net', weights: near.safetensors}"
    assert main(["status", str(hand_made(tmp_path).file), "--set", factory]) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "witness: stopped by SIGTERM"
    del sys.modules["sending_net"]


def test_a_process_that_ignores_sigterm_goes_on_ignoring_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        options = type("Options", (), {})()
        from pipelines.cli.ending import exit_code_of

        assert exit_code_of(lambda _: seen.append(signal.getsignal(signal.SIGTERM)) or 0, options) == 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == [signal.SIG_IGN]


class TestFaults:
    """A fault of the code: one message on the terminal, the traceback in a file that it names."""

    def test_before_a_run_has_a_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("aligned")

        monkeypatch.setattr(blueprint.Blueprint, "clean", broken)
        assert main(["status", str(hand_made(tmp_path).file)]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        start = "witness: KeyError: 'aligned'. This is a fault of Witness or of a library; its traceback is in "
        assert last.startswith(start)
        file = Path(last.removeprefix(start))
        assert "Traceback (most recent call last)" in file.read_text() and "in broken" in file.read_text()
        file.unlink()

    def test_an_error_of_the_system_has_true_advice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device", "a/file")

        monkeypatch.setattr(commands, "_request", full)
        assert main(["run", str(hand_made(tmp_path).file)]) == 1
        said = capsys.readouterr().err
        assert (
            "No space left on device: 'a/file'. What was finished is kept; once the cause is mended, the same" in said
        )


@pytest.mark.parametrize(
    "command", ["plan", "status", "status --watch", "status --json", "verify", "run", "report", "ui"]
)
def test_an_output_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    file = tmp_path / "results.txt"
    file.write_text("mine")
    name, *flags = command.split()
    assert main([name, str(hand_made(tmp_path).file), "--output", str(file), *flags]) == 2
    said = capsys.readouterr()
    assert f"output: {file} is a file; name a folder" in said.err
    assert said.out == "" and file.read_text() == "mine"


def test_an_input_that_the_system_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = hand_made(tmp_path)
    (tmp_path / "weights").mkdir()
    for setting in ("models.near.weights=weights", f"data.test.path={'x' * 300}", "output=/dev/null/runs"):
        for command in ("run", "status"):
            assert main([command, str(experiment.file), "--set", setting]) == 2, setting
            said = capsys.readouterr().err
            assert "Traceback" not in said and "resumes" not in said


def test_a_tmpdir_that_is_too_long_for_sockets(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "pipelines.cli", "run", str(hand_made(tmp_path).file)]
    done = subprocess.run(
        command, env=environment | {"TMPDIR": str(long)}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "AF_UNIX path length" in last and last.endswith("set TMPDIR to a short one, as /tmp")
    assert "resumes" not in done.stderr and not (tmp_path / "out put").exists()


@pytest.mark.parametrize(
    "address",
    ["ray://me:hush-hush@127.0.0.1:1", "127.0.0.1:1?token=hush-hush",
     *(pytest.param(address, marks=pytest.mark.slow) for address in (
         "me:hush-hush@127.0.0.1:1", "ray://127.0.0.1:1?token=hush-hush", "http://me:hush-hush@127.0.0.1:1",
     ))],
)  # fmt: skip
def test_secrets_in_an_address_are_not_echoed(tmp_path: Path, address: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "pipelines.cli", "run", str(hand_made(tmp_path).file), "--address", address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "no Ray cluster could be reached at " in done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_a_command_whose_output_nobody_reads_ends_without_a_word() -> None:
    """As `witness list attacks | head` does once head has its lines."""
    command = [sys.executable, "-m", "pipelines.cli", "list", "attacks", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
