"""`witness run` and `witness reasons` on Ray: what is measured, what is left alone, going on after interruptions."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from digits_experiment import Finished, assert_same_tables, leave_under_way
from one_worker import measure

from pipelines import load_results
from pipelines.cli import main
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.run.status import status_of

REASONS = ("reasons={sample: 30, attack: fgsm}",)
CHUNKS = 2  # of 20 images and of 10


@pytest.fixture(scope="module")
def measured(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Path, dict[str, int]]:
    """The finished digits experiment, to which reasons were added afterwards, and what that run made."""
    request, folder = finished.copied(tmp_path_factory.mktemp("measured"), overrides=REASONS)
    return request, folder, run(request).made


def test_reasons_are_added_to_what_is_there(measured: tuple[Request, Path, dict[str, int]]) -> None:
    request, folder, made = measured
    tables = [file.parent for file in (folder / "reasons").rglob("*.parquet")]
    assert made == {"align": 0, "craft": 0, "evaluate": 0, "reasons": CHUNKS * len(tables), "report": 1}
    status = status_of(request)
    assert status.is_done
    assert sum(entry.folder.startswith("reasons/") for entry in status.entries) == len(tables)
    assert {entry.chunks for entry in status.entries if entry.folder.startswith("reasons/")} == {CHUNKS}
    assert ("reasons", "@soft") in {(group.stage, group.name) for group in status.groups()}
    assert not (folder / ".reasons").exists()


def test_workers_measure_what_this_process_does(measured: tuple[Request, Path, dict[str, int]], tmp_path: Path) -> None:
    request, folder, _ = measured
    shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("reasons"))
    measure(open_blueprint(Request(request.source, REASONS, output=str(tmp_path), quiet=True)))
    assert_same_tables(folder / "reasons", tmp_path / folder.name / "reasons")


def test_a_run_that_was_interrupted_ends_with_the_same_tables(
    measured: tuple[Request, Path, dict[str, int]], tmp_path: Path
) -> None:
    request, folder, _ = measured
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    leave_under_way(copy / "reasons/aligned/@self", [1])
    leave_under_way(copy / "reasons/aligned/mlp", [])
    shutil.rmtree(copy / "reasons/@soft")
    made = run(Request(request.source, REASONS, output=str(tmp_path), quiet=True), ("reasons",)).made
    assert made == {"reasons": 1 + CHUNKS + CHUNKS}
    assert_same_tables(folder / "reasons", copy / "reasons")


def test_a_damaged_adversarial_image_is_named(
    measured: tuple[Request, Path, dict[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, folder, _ = measured
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "reasons/warm")
    (table,) = (copy / "adversarial/warm/fgsm").iterdir()
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 255
    table.write_bytes(content)
    assert main(["reasons", str(request.source), "--output", str(tmp_path), "--set", REASONS[0], "--quiet"]) == 1
    assert "adversarial/warm/fgsm: chunk" in capsys.readouterr().err


def test_the_stage_by_itself_wants_the_section(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reasons", str(finished.file)]) == 2
    message = "the experiment has no reasons; add the section `reasons: {}` to its file"
    assert message in capsys.readouterr().err


def test_the_tables_are_read_back_as_they_were_written(measured: tuple[Request, Path, dict[str, int]]) -> None:
    request, folder, _ = measured
    results = load_results(request.source, overrides=REASONS, output=str(folder.parent))
    for name in ("reasons", "correlations", "soft_labels"):
        on_disk = pd.read_csv(folder / f"report/{name}.csv", dtype={"point": str}, keep_default_na=False)
        assert list(on_disk) == list(getattr(results, name))
        assert len(on_disk) == len(getattr(results, name)) > 0
    assert "<h3>reasons.csv</h3>" in (folder / "report/report.html").read_text()
