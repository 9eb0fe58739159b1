"""A full disk ends a run with a clear message; a worker that hangs is replaced. In both cases the work resumes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from digits_experiment import SMALL, Finished, assert_same_tables

from align_core.cpus import usable_cpus
from pipelines.failure import RunFailed
from pipelines.run.command import run

RESULTS = ("adversarial", "outcomes", "clean")

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that mounts a disk of a size in bytes, and resizes it when called again; returns its folder."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def sized(size: int) -> Path:
        again = "remount," if os.path.ismount(disk) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("this user is not allowed to mount a disk")
        return disk

    yield sized
    subprocess.run(["umount", "-l", str(disk)], check=False)


def size_of(folder: Path) -> int:
    """Size of all files in bytes, each rounded up to whole pages as on a disk in memory."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*") if file.is_file())


def test_a_full_disk_is_reported_and_with_more_room_the_same_command_resumes(
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


# A network that hangs for ever in the middle of a chunk, the first time it is used, as a device driver or lock may.
HANGING = """
import os, sys, time
from pathlib import Path
from pipelines.recipes.digit_models import cnn

def hanging(marker, **arguments):
    net = cnn(**arguments)

    def hang(module, inputs):
        if Path(sys.argv[0]).name == "default_worker.py" and not Path(marker).exists():  # not in the command's trial
            Path(marker).write_text(str(os.getpid()))
            time.sleep(1e6)

    net.register_forward_pre_hook(hang)
    return net
"""


@pytest.mark.parametrize("stage", ["craft", "evaluate"])
def test_a_worker_that_hangs_ends_itself_and_another_takes_its_work(
    finished: Finished, tmp_path: Path, stage: str
) -> None:
    """There is room for one worker only, so that the next one cannot start until the hanging one has ended."""
    (tmp_path / "hanging_nets.py").write_text(HANGING)
    content = yaml.safe_load(finished.file.read_text())
    own = {"factory": "hanging_nets:hanging", "args": SMALL | {"marker": str(tmp_path / "hung")}}
    content["models"]["cnn_d"] |= own
    content["variants"] = {"old": {"model": "cnn_d"}} if stage == "craft" else {}
    content["targets"] += [] if stage == "craft" else ["cnn_d"]
    content["compute"] |= {"patience": 15, "workers": 1, "threads": usable_cpus()}
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(content))
    _, folder = finished.copied(tmp_path / "runs")
    command = [sys.executable, "-m", "pipelines.cli", "run", str(tmp_path / "digits.yaml")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "runs")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hung").exists()
    assert "broke off" not in done.stderr
    name = "outcomes/old/pgd/cnn_c" if stage == "craft" else "outcomes/aligned/pgd/cnn_d"
    assert len(list((folder / name).iterdir())) == 1
