"""The lines of a run are kept in a log file, which also says how the run ended."""

from pathlib import Path

import pytest
from digits_experiment import Finished

from pipelines.failure import RunFailed
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


def test_it_is_said_where_gpus_wait_for_images(store: Store, tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    with progress.logged(store):
        for label, waited in (("craft", 3.0), ("evaluate", 0.5)):
            with progress.stage(label, 2, "images") as bar:
                bar.took(0.0, 2.0)
                bar.took(waited, 5.0)
    *said, last = log_in(tmp_path / "tiny").splitlines()
    assert [line for line in said if "craft: GPUs waited 30 % of the time" in line]
    assert not [line for line in said if "evaluate: GPUs" in line]
    assert "GPUs waited 30 %" in last and "GPUs waited 7 %" in last


def test_the_log_contains_the_exception_that_ended_the_block(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(quiet=True).logged(store):
        raise KeyboardInterrupt
    log = log_in(tmp_path / "tiny")
    assert log.endswith("ended with KeyboardInterrupt\n") and "Traceback" not in log


def test_a_line_can_be_in_the_file_at_once(store: Store, tmp_path: Path) -> None:
    """What is said when the process may be ended by others must not wait for the next line."""
    progress = Progress(quiet=True)
    with progress.logged(store):
        progress.say("first")
        progress.say("second")
        assert "second" not in log_in(tmp_path / "tiny")
        progress.say("third", at_once=True)
        assert log_in(tmp_path / "tiny").endswith("second\n" + log_in(tmp_path / "tiny").splitlines()[-1] + "\n")


def test_a_fault_leaves_its_traceback_in_the_log_and_one_message(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed, Progress(quiet=True).logged(store):
        {}["aligned"]
    log = log_in(tmp_path / "tiny")
    assert "Traceback (most recent call last)" in log and '{}["aligned"]' in log
    assert log.endswith("ended with KeyError: 'aligned'\n")
    (file,) = (tmp_path / "tiny/logs").iterdir()
    start = f"KeyError: 'aligned'. This is a fault of Witness or of a library; its traceback is in {file}. "
    assert str(failed.value).startswith(start)
    assert "\n" not in str(failed.value)


def test_what_explains_itself_stays_as_it_is_and_the_log_has_its_cause(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"^the alignment failed$"), Progress(quiet=True).logged(store):
        raise RunFailed("the alignment failed") from ZeroDivisionError("with s3://me:hush@bucket")
    assert "ZeroDivisionError: with s3://***@bucket" in log_in(tmp_path / "tiny")


class Clock:
    """A clock that stands still unless a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: self.now)


class TestRemainingTime:
    def test_it_leaves_the_start_of_workers_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two workers start for 60 s, then each makes a chunk of 10 images every 2 s."""
        clock, progress = Clock(monkeypatch), Progress(quiet=True)
        with progress.stage("craft", 100, "images", workers=2) as bar:
            assert bar.line() == "craft: 0 of 100 images, starting 2 workers"
            clock.now += 60
            assert bar.line() == "craft: 0 of 100 images, starting 2 workers"
            bar.advance(10)
            clock.now += 0.1
            bar.advance(10, "source pgd")  # of the other worker, which would make it 100 images a second
            assert bar.line() == "craft: 20 of 100 images  source pgd"
            clock.now += 1.9
            bar.advance(10)
            assert bar.line() == "craft: 30 of 100 images, 10.0/s, 7 s left  source pgd"
            clock.now += 0.1
            bar.advance(70)
        (spent,) = progress.spent
        assert str(spent) == "craft 62.1 s (100 images, 42.9/s)"  # 90 images in 2.1 s

    def test_plain_lines_say_once_that_workers_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = Progress(quiet=True)
        for workers in (2, 0):
            with progress.stage("craft", 100, "images", workers) as bar:
                bar.advance(50)
                bar.advance(50)
        said = capsys.readouterr().err
        assert said.splitlines()[0] == "witness: craft: 0 of 100 images, starting 2 workers"
        assert said.count("starting") == 1

    def test_one_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        with Progress(quiet=True).stage("craft", 30, "images", workers=1) as bar:
            assert bar.line().endswith("starting 1 worker")
            clock.now += 60
            bar.set(10)
            assert bar.line() == "craft: 10 of 30 images"
            clock.now += 2
            bar.set(20)
            assert bar.line() == "craft: 20 of 30 images, 5.0/s, 2 s left"

    def test_work_without_workers_counts_from_its_beginning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        with Progress(quiet=True).stage("inspect", 30, "images") as bar:
            assert bar.line() == "inspect: 0 of 30 images"
            clock.now += 2
            bar.set(10)
            assert bar.line() == "inspect: 10 of 30 images, 5.0/s, 4 s left"
            clock.now += 98
            assert bar.line() == "inspect: 10 of 30 images, 6.0/min, 200 s left"

    def test_of_one_the_unit_is_in_the_singular(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        with Progress(quiet=True).stage("inspect models", None, "models") as bar:
            clock.now += 10
            bar.advance(1)
            assert bar.line() == "inspect models: 1 model, 6.0/min"

    def test_a_speed_in_bytes_has_its_unit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, progress = Clock(monkeypatch), Progress(quiet=True)
        with progress.fetching("data.test.path")(30_000_000) as advance:
            clock.now += 2
            advance(30_000_000)
        assert str(progress.spent[0]) == "fetch data.test.path 2.0 s (30 MB, 15.0 MB/s)"

    def test_what_will_not_be_done_is_not_waited_for_and_not_counted(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Two fine-tunes of 40 steps: one fails after 10, the other goes on to its end."""
        clock, progress = Clock(monkeypatch), Progress(quiet=True)
        with progress.stage("align", 80, "steps") as bar:
            clock.now += 10
            bar.set(20)
            assert bar.line() == "align: 20 of 80 steps, 2.0/s, 30 s left"
            bar.leave_out(30)
            assert bar.line() == "align: 20 of 80 steps, 2.0/s, 15 s left"
            clock.now += 15
            bar.set(50)
            assert bar.line() == "align: 50 of 80 steps, 2.0/s"
        assert capsys.readouterr().err.splitlines()[-1] == "witness: align: 50 of 80 steps in 25.0 s"
        assert str(progress.spent[0]) == "align 25.0 s (50 steps, 2.0/s)"


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
    assert "witness: craft: 0 of 60 images, starting 2 workers" in shown
    assert "witness: evaluate: 0 of 180 predictions, starting 2 workers" in shown
    assert shown[-1].endswith(f"{result.spent[0]}; {result.spent[1]}")
    run(request)  # nothing to compute, so no log
    assert log_in(folder) == log
