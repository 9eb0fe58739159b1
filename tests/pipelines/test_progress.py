"""What is said while work goes on is kept, with how it ended."""

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


def test_the_log_holds_what_was_said_before_and_inside(store: Store, tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    progress.say("before")
    with progress.logged(store), progress.stage("craft", 6, "images") as bar:
        bar.advance(6)
    lines = log_in(tmp_path / "tiny").splitlines()
    assert [line.partition("Z ")[2].split(":")[0] for line in lines[:2]] == ["before", "craft"]
    assert "s in all: craft" in lines[-1]
    assert "(6 images" in lines[-1]


def test_and_how_it_ended(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(quiet=True).logged(store):
        raise KeyboardInterrupt
    assert "ended with KeyboardInterrupt" in log_in(tmp_path / "tiny")


def test_a_run_leaves_one_and_says_the_time_of_each_stage(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, folder = finished.copied(tmp_path, "adversarial/source/pgd", "outcomes/source/pgd", "logs")
    result = run(request)
    said = capsys.readouterr().err.splitlines()
    log = log_in(folder)
    assert [line.removeprefix("witness: ") for line in said] == [line.partition("Z ")[2] for line in log.splitlines()]
    assert [(spent.label, spent.done, spent.unit) for spent in result.spent] == [
        ("craft", 60, "images"),
        ("evaluate", 180, "predictions"),
    ]
    assert said[-1].endswith(f"{result.spent[0]}; {result.spent[1]}")
    run(request)  # nothing to compute: no log of that
    assert log_in(folder) == log
