"""The lines of a run are kept in a log file, which also says how the run ended."""

from pathlib import Path

import pytest
from digits_experiment import Finished

from pipelines.progress import Progress
from pipelines.run.command import run
from pipelines.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), "tiny")


def log_in(folder: Path) -> str:
    (file,) = (folder / "logs").iterdir()
    assert file.name.endswith("Z.log")
    return file.read_text()


def test_the_log_contains_the_lines_before_and_inside_the_block(store: Store, tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    progress.say("before")
    with progress.logged(store), progress.stage("craft", 6, "images") as bar:
        bar.advance(6)
    lines = log_in(tmp_path / "tiny").splitlines()
    assert [line.partition("Z ")[2].split(":")[0] for line in lines[:2]] == ["before", "craft"]
    assert "s in all: craft" in lines[-1]
    assert "(6 images" in lines[-1]


def test_the_log_contains_the_exception_that_ended_the_block(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(quiet=True).logged(store):
        raise KeyboardInterrupt
    assert "ended with KeyboardInterrupt" in log_in(tmp_path / "tiny")


def test_a_log_that_cannot_be_written_hides_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends the work and refuses the log as well: the user has to hear of the work."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(KeyboardInterrupt), Progress(quiet=True).logged(store):
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="No space left"), Progress(quiet=True).logged(store):
        pass


def test_a_run_leaves_a_log_and_shows_the_time_of_each_stage(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, folder = finished.copied(tmp_path, "adversarial/source/pgd", "outcomes/source/pgd", "logs")
    result = run(request)
    shown = capsys.readouterr().err.splitlines()
    log = log_in(folder)
    assert [line.removeprefix("witness: ") for line in shown] == [line.partition("Z ")[2] for line in log.splitlines()]
    assert [(spent.label, spent.done, spent.unit) for spent in result.spent] == [
        ("craft", 60, "images"),
        ("evaluate", 180, "predictions"),
    ]
    assert shown[-1].endswith(f"{result.spent[0]}; {result.spent[1]}")
    run(request)  # nothing to compute, so no log
    assert log_in(folder) == log
