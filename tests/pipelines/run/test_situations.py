"""Sixteen situations that were met badly once, each run from its experiment file, as users meet them.

They are taken from public bug reports of similar software. Each must end well, or be refused at once with one message.
"""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from coloured import CLASSES, write_coloured
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.cli import main


def changed(file: Path, **sections: Any) -> None:
    """Replaces sections of an experiment file; `data__test__limit=20` is a key within one."""
    content = yaml.safe_load(file.read_text())
    for path, value in sections.items():
        *parents, last = path.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def run(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of `witness run` and what it says."""
    capsys.readouterr()
    code = main(["run", str(file)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, said


def refused(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `witness run` says when it refuses an experiment; nothing is written."""
    code, said = run(file, capsys)
    assert code == 2, said
    assert not (file.parent / "out").exists()
    return said


def table(file: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(file.parent / "out/coloured/report" / f"{name}.csv")


def thin_png() -> bytes:
    """A picture of 1 x 60,000 pixels in a few hundred bytes."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0\0\0\0" * 60_000, 9)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", body) + part(b"IEND", b"")


ALIAS_BOMB = "b0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)


class TestRefused:
    """What cannot work, or would give wrong numbers, ends with exit code 2 before anything is written."""

    def test_target_with_weights_that_are_not_finite(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        state = load_file(tmp_path / "net_c.safetensors")
        state["colours"][0, 0] = float("nan")
        save_file(state, tmp_path / "net_c.safetensors")
        said = refused(file, capsys)
        assert "net_c" in said and "colours" in said

    def test_control_whose_forward_allows_no_gradient(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(write_coloured(tmp_path, {"net_b": "NoGrad"}, controls=["witness"]), capsys)
        assert "net_b" in said and "gradient" in said

    def test_factory_that_exits(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "exits" in refused(write_coloured(tmp_path, {"net_c": "exits"}), capsys)

    def test_alias_bomb(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        text = file.read_text()
        bomb = "".join(f"      {line}\n" for line in ALIAS_BOMB.splitlines())
        file.write_text(text.replace("  net_a:\n", f"  net_a:\n    args:\n{bomb}", 1))
        assert "alias" in refused(file, capsys)

    def test_control_named_twice(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(write_coloured(tmp_path, controls=["label_only", "label_only"]), capsys)
        assert "label_only is named twice" in said

    def test_file_name_that_is_not_utf8(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        folder = tmp_path / "test" / CLASSES[3]
        shutil.copy(folder / "000.png", os.fsencode(folder) + b"/caf\xe9.png")
        assert "UTF-8" in refused(file, capsys)

    def test_picture_that_is_one_pixel_wide(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        (tmp_path / "test" / CLASSES[3] / "thin.png").write_bytes(thin_png())
        assert "thin.png" in refused(file, capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
class TestRun:
    """What can work does, and says what it did with the input."""

    def test_folder_that_lacks_a_class(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        shutil.rmtree(tmp_path / "test" / CLASSES[2])
        code, said = run(file, capsys)
        assert code == 0, said
        assert CLASSES[2] in said
        rows = table(file, "surrogates")
        assert (rows["clean_accuracy"] > 90).all()

    def test_limit_that_takes_four_classes_of_ten(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        changed(file, data__test__limit=14)
        code, said = run(file, capsys)
        assert code == 0, said
        assert "4 of 10 classes" in said and "sample" in said

    def test_hidden_folder_below_a_class(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        hidden = tmp_path / "test" / CLASSES[3] / ".ipynb_checkpoints"
        hidden.mkdir()
        for name in ("000.png", "001.png"):
            shutil.copy(hidden.parent / name, hidden)
        assert run(file, capsys)[0] == 0
        clean = pd.read_parquet(tmp_path / "out/coloured/clean/net_a")
        assert len(clean) == 40

    def test_grey_picture_sorted_first(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path)
        first = tmp_path / "test" / CLASSES[0] / "000.png"
        Image.open(first).convert("L").save(first)
        code, said = run(file, capsys)
        assert code == 0, said
        assert "1 grey" in said
        assert len(pd.read_parquet(tmp_path / "out/coloured/clean/net_a")) == 40

    @pytest.mark.parametrize("kind", ["Aux", "Tied"])
    def test_source_with_a_habit(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
        file = write_coloured(tmp_path, {"net_a": kind})
        code, said = run(file, capsys)
        assert code == 0, said
        assert {"source", "aligned"} <= set(table(file, "transfer")["surrogate"])

    def test_parameters_that_forward_never_uses(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path, {"net_a": "Unused"})
        changed(file, align__workers=2)
        code, said = run(file, capsys)
        assert code == 0, said
        weights = load_file(tmp_path / "out/coloured/models/aligned/model.safetensors")
        before = load_file(tmp_path / "net_a.safetensors")
        assert torch.equal(weights["other_head.weight"], before["other_head.weight"])
        assert not torch.equal(weights["colours"], before["colours"])

    def test_attack_named_like_an_unfinished_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_coloured(tmp_path, attacks={"x.part": {"method": "fgsm", "eps": "32/255"}})
        assert run(file, capsys)[0] == 0
        code, said = run(file, capsys)
        assert code == 0, said
        assert "nothing to compute" in said

    def test_variant_that_diverges_fails_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        variants = {"hot": {"align": {"temperature": 1e30}}, "warm": {"align": {"temperature": 8}}}
        file = write_coloured(tmp_path, variants=variants)
        code, said = run(file, capsys)
        assert code == 1, said
        assert "hot" in said
        rows = table(file, "transfer")
        assert {"source", "aligned", "warm"} == set(rows["surrogate"])
        assert "hot" in (tmp_path / "out/coloured/report/report.html").read_text()
        main(["status", str(file), "--json"])
        states = {entry["folder"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["entries"]}
        assert states["models/hot"] == "failed"
