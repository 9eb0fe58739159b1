"""A disk that is full and a worker that hangs: a clear end or none at all, and the same command goes on."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from digits_experiment import Finished, assert_same_tables

from pipelines.failure import RunFailed
from pipelines.run import run

RESULTS = ("adversarial", "outcomes", "clean")

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many bytes; called again, it is as large as that then."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(size: int) -> Path:
        again = "remount," if os.path.ismount(place) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("only who may mount can have a small disk")
        return place

    yield sized
    subprocess.run(["umount", "-l", str(place)], check=False)


def size_of(folder: Path) -> int:
    """In whole pages, as a disk in memory counts."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*") if file.is_file())


def test_a_full_disk_is_said_and_with_more_room_the_same_command_goes_on(
    finished: Finished, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(64 * 2**20)
    request, folder = finished.copied(disk, *RESULTS, "report")
    small_disk(size_of(folder) + 40 * 4096)
    with pytest.raises(RunFailed, match=r"the work on the chunks broke off: .*No space left on device.*same command"):
        run(request)
    assert not list(folder.rglob("*.part"))
    small_disk(64 * 2**20)
    run(request)
    for name in RESULTS:
        assert_same_tables(finished.folder / name, folder / name)


@pytest.mark.parametrize("stage", ["craft", "evaluate"])
def test_a_worker_that_hangs_is_replaced(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    absent = RESULTS if stage == "craft" else RESULTS[1:]
    slow = ["compute.patience=20", "compute.chunk=20"]
    request, folder = finished.copied(tmp_path, *absent, "report", overrides=slow)
    stopped: list[int] = []
    pattern = "adversarial/*/*/*-chunk-*" if stage == "craft" else "outcomes/*/*/*/*-chunk-*"

    def stop_one() -> None:
        while not list(folder.glob(pattern)):
            time.sleep(0.01)
        workers = [p for p in psutil.Process().children(recursive=True) if any("MapWorker" in c for c in p.cmdline())]
        os.kill(workers[0].pid, signal.SIGSTOP)
        stopped.append(workers[0].pid)

    thread = threading.Thread(target=stop_one)
    thread.start()
    run(request)
    thread.join()
    assert stopped
    assert "the work broke off" in capsys.readouterr().err
    assert not psutil.pid_exists(stopped[0]) or psutil.Process(stopped[0]).status() == psutil.STATUS_ZOMBIE
    for name in RESULTS:
        assert_same_tables(finished.folder / name, folder / name)
