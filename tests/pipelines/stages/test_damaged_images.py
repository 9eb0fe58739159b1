"""Images of which one bit is not as it was written end a command before any work, and nothing is written."""

from pathlib import Path

import numpy as np
import pytest
from damaged_files import damage
from hand_made import hand_made

from pipelines.cli import main


@pytest.mark.parametrize("what", ["data.train", "attacks.theirs"])
def test_a_bit_that_is_another(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = {"images": "theirs.npz", "eps": "8/255"}
    made = hand_made(tmp_path, attacks={"pgd": {"method": "pgd", "eps": "8/255"}, "theirs": theirs})
    with np.load(tmp_path / "images.npz") as stored:
        images = stored["images"]
    np.savez(tmp_path / "theirs.npz", images=images[4:])
    assert main(["plan", str(made.file)]) == 0
    file = tmp_path / ("images.npz" if what == "data.train" else "theirs.npz")
    damage(file, images[4:].tobytes())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert main(["run", str(made.file)]) == 2
    assert f"{what}: {file}: its content is damaged (CRC-32): fetch it again" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
