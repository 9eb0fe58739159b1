"""`witness verify` lists inputs that can no longer be used, where results were made of them."""

import json
import sys
from pathlib import Path

import pytest
from hand_made import HandMade, hand_made

from pipelines.cli import main


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = hand_made(tmp_path)
    made.finish()
    return made


def truncated(made: HandMade, *names: str) -> None:
    for name in names:
        file = made.folder / name
        file.write_bytes(file.read_bytes()[:-40])


def verified(made: HandMade, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["verify", str(made.file), "--json"]) == 1
    found: list[str] = json.loads(capsys.readouterr().out)["findings"]
    return found


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_every_damaged_file_of_weights_is_listed(
    finished: HandMade, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    truncated(finished, "twin.safetensors", "seer.safetensors")
    if damage == "gone":
        (finished.folder / "twin.safetensors").unlink()
    seer, twin = verified(finished, capsys)
    assert seer.startswith(f"models.seer: {finished.folder}/seer.safetensors: cannot be read as weights")
    assert twin.startswith(f"models.twin: {finished.folder}/twin.safetensors: ") and twin.endswith("cannot be checked")


def test_a_damaged_image_set_is_listed(finished: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    truncated(finished, "images.npz")
    (found,) = verified(finished, capsys)
    assert "data.train: " in found and "images.npz: cannot be read as npz" in found


def test_settings_that_are_wrong_and_experiments_that_never_ran_are_refused(
    finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(finished.file), "--set", "source=nobody"]) == 2
    truncated(finished, "twin.safetensors")
    assert main(["verify", str(finished.file), "--output", str(tmp_path / "empty")]) == 2
    assert "models.twin: " in capsys.readouterr().err
