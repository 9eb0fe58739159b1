"""A model whose code ends the process at once is named, though the process itself can say nothing any more."""

import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import HandMade, hand_made

_TRIED = """
import ctypes, os, signal, sys
from pipelines.stages.sudden_ends import naming_sudden_ends

with naming_sudden_ends() as named:
    assert named("sound", lambda: 3)() == 3
    named("near", lambda: {})()
"""
_SAID = "witness: models.{}: the process ended at once while this model was tried: its code called os._exit or crashed"


def ended(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("end", "code"), [("os._exit(7)", 7), ("ctypes.string_at(0)", -11), ("os.kill(os.getpid(), signal.SIGKILL)", -9)]
)
def test_the_model_is_named_however_the_process_ends(end: str, code: int) -> None:
    process = ended(_TRIED.format(end))
    assert process.returncode == code
    assert [line[: len(_SAID)] for line in process.stderr.splitlines()] == [_SAID.format("near")[: len(_SAID)]]


@pytest.mark.parametrize(("end", "code"), [("4", 0), ("sys.exit(5)", 5), ("os.close(2)", 0)])
def test_nothing_is_said_of_models_of_which_none_ends_the_process(end: str, code: int) -> None:
    process = ended(_TRIED.format(end))
    assert (process.returncode, process.stderr) == (code, "")


def test_a_network_that_ends_the_process_as_it_predicts(tmp_path: Path) -> None:
    made = hand_made(tmp_path)
    (tmp_path / "ending.py").write_text(
        "import os\nfrom hand_made_networks import linear\n\ndef leaving(width):\n    network = linear(width)\n"
        "    network.register_forward_hook(lambda *_: os._exit(9))\n    return network\n"
    )
    models = HandMade(tmp_path).content()["models"]
    models["seer"]["factory"] = "ending:leaving"
    made.write(models=models)
    command = [sys.executable, "-m", "pipelines.cli", "plan", str(made.file)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 9 and process.stdout == ""
    assert process.stderr.splitlines()[-1].startswith(_SAID.format("seer"))
    assert not made.output.exists()
