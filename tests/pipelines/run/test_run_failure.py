"""`witness run` when a part of it fails: what the message says, and which results are kept."""

from pathlib import Path

import pytest
from digits_experiment import Finished, assert_same_tables
from digits_folder import changed, state

from pipelines.cli import main
from pipelines.run.command import run


class TestFailure:
    def test_the_message_of_a_diverging_alignment_names_the_setting_to_change(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path)
        settings = ["align.optimizer.lr=1e30", "controls=[]", "variants={}"]
        arguments = [part for setting in settings for part in ("--set", setting)]
        before = state(folder)
        assert main(["run", str(request.source), "--output", str(request.output), *arguments]) == 1
        printed = capsys.readouterr().err
        assert "the alignment of aligned failed" in printed
        assert "lower align.optimizer.lr" in printed
        assert "delete models/aligned/failed.json to try once more" in printed.replace(f"{folder}/", "")
        assert [path.name for path in (folder / "models/aligned").iterdir()] == ["failed.json"]
        made = {path.partition("/")[0] for path in changed(folder, before) if path[0] != "."}
        assert made <= {"models", "report", "experiment.yaml"}
        report = (folder / "report/report.html").read_text()
        assert "aligned" in report and "lower align.optimizer.lr" in report

    def test_damaged_images_are_named_and_crafted_again_once_their_folder_is_moved_away(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path, "outcomes/source/pgd")
        images = folder / "adversarial/source/pgd"
        (file,) = images.iterdir()
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
        assert main(["run", str(request.source), "--output", str(request.output)]) == 1
        printed = capsys.readouterr().err
        assert "adversarial/source/pgd: chunk " in printed and "is damaged" in printed
        assert "move that folder away, and `witness run` crafts it anew" in printed
        images.rename(tmp_path / "away")
        run(request, ("craft", "evaluate"))
        for name in ("adversarial", "outcomes"):
            assert_same_tables(finished.folder / name, folder / name)


@pytest.mark.slow
def test_ray_that_was_started_early_for_a_wrong_experiment_is_ended(tmp_path: Path) -> None:
    """Where models have to be trained, Ray starts while they are inspected: a wrong one still leaves nothing behind."""
    import subprocess
    import sys

    import psutil

    from pipelines import recipes

    demo = Path(recipes.__file__).parent / "demo.yaml"
    command = [sys.executable, "-m", "pipelines.cli", "run", str(demo), "--set", "models.vit.timm=nonsense", "--quiet"]
    before = {process.pid for process in psutil.process_iter() if "raylet" in process.name()}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "models.vit: timm: nonsense: RuntimeError: Unknown model (nonsense)" in done.stderr
    assert not list(tmp_path.iterdir())
    assert {process.pid for process in psutil.process_iter() if "raylet" in process.name()} <= before
