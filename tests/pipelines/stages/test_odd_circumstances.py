"""A clock that jumps, a folder that cannot be written, two runs at once: the tables stay the same, byte for byte."""

import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from digits_experiment import Finished
from digits_folder import state
from faulty_runs import PATIENCE, assert_whole, start, wait_for, workers

pytestmark = pytest.mark.slow

RUNS = min(5, int(os.environ.get("WITNESS_FAULTS", "5")))
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
# libfaketime makes Python's sleep fail, which waits for a time of the monotonic clock. That clock never jumps.
TRUE_SLEEP = """
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *rest) {
    return syscall(SYS_clock_nanosleep, clock, flags, until, rest) ? errno : 0;
}
"""


@pytest.mark.parametrize("number", range(RUNS))
@pytest.mark.skipif(
    not (os.path.exists(FAKETIME) and shutil.which("cc")),
    reason="needs libfaketime and a C compiler (Debian: faketime gcc)",
)
def test_a_clock_that_jumps_changes_nothing(finished: Finished, tmp_path: Path, number: int) -> None:
    """The clock of the run's processes alone jumps by hours, back and forth, every two seconds or so.

    It does so once workers are there: where the clock is set back while Ray's own processes start, they fail to. Where
    they give up later, the same command is given again.
    """
    rng = random.Random(number)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    sleep = tmp_path / "sleep.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", sleep], input=TRUE_SLEEP, text=True, check=True)
    faked = {
        "LD_PRELOAD": f"{sleep} {FAKETIME}",
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    codes, jumps = [], 0
    while not codes or (codes[-1] != 0 and len(codes) < 3):
        clock.write_text("+0")
        driver = start(finished, tmp_path, environment=faked)
        wait_for(driver, lambda: bool(workers()), "the run ended before its clock jumped")
        end = time.monotonic() + PATIENCE
        while driver.poll() is None:
            assert time.monotonic() < end, (tmp_path / "log.txt").read_text(errors="replace")
            time.sleep(rng.uniform(1, 3))
            clock.write_text(f"{rng.choice((-90000, -7200, -60, 60, 7200, 90000)):+d}")
            jumps += 1
        codes.append(driver.returncode)
    assert jumps > 3
    log = (tmp_path / "log.txt").read_text(errors="replace")
    if any(codes):  # Ray's own processes may give up under such a clock
        assert "the same command" in log and "Traceback" not in log
    if codes[-1] != 0:
        assert start(finished, tmp_path).wait(timeout=PATIENCE) == 0
    print(f"\n{number}: exit codes {codes} after {jumps} jumps")
    assert_whole(finished, tmp_path)


@pytest.mark.parametrize("number", range(RUNS))
def test_two_runs_at_once_make_everything_once(finished: Finished, tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    first = start(finished, tmp_path)
    time.sleep(rng.uniform(0, 20))
    second = start(finished, tmp_path)
    codes = sorted([first.wait(timeout=PATIENCE), second.wait(timeout=PATIENCE)])
    log = (tmp_path / "log.txt").read_text(errors="replace")
    assert codes[0] == 0, log
    if codes[1] != 0:
        assert "another run is at work" in log
        assert "Traceback" not in log
    assert_whole(finished, tmp_path)
    before = state(tmp_path / finished.folder.name)
    assert start(finished, tmp_path).wait(timeout=PATIENCE) == 0
    assert state(tmp_path / finished.folder.name) == before


@pytest.fixture
def read_only(finished: Finished, tmp_path: Path) -> Iterator[Path]:
    """A copy of the results in which nothing can be written by the user `nobody`."""
    output = tmp_path / "output"
    output.mkdir()
    shutil.copytree(finished.folder, output / finished.folder.name)
    for path in [output, *output.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield output
    for path in [output, *output.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def without_root(command: list[str]) -> list[str]:
    """The command without root's right to write what its permissions forbid."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]


def on_read_only(finished: Finished, output: Path, command: str, *settings: str) -> tuple[int, str]:
    """The exit code of a command on a folder that it cannot write, and what it says. It must change nothing."""
    before = state(output)
    arguments = [sys.executable, "-m", "pipelines.cli", command, str(finished.file), "--output", str(output)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(without_root(arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert "Traceback" not in done.stderr
    assert state(output) == before
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["status", "plan", "verify"])
def test_what_only_reads_works_where_nothing_can_be_written(finished: Finished, read_only: Path, command: str) -> None:
    code, said = on_read_only(finished, read_only, command)
    assert code == 0, said


@pytest.mark.parametrize("settings", [(), ("targets=[cnn_c, mlp, cnn_d]",)])
@pytest.mark.parametrize("command", ["run", "report"])
def test_what_writes_is_refused_where_nothing_can_be_written(
    finished: Finished, read_only: Path, command: str, settings: tuple[str, ...]
) -> None:
    code, said = on_read_only(finished, read_only, command, *settings)
    assert code == 2, said
    assert "cannot be written (Permission denied)" in said
