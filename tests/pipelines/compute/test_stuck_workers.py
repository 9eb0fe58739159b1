"""A process whose work shows no progress ends itself; one that goes on does not, however long it takes."""

import subprocess
import sys

BLOCK = """
import time
from pipelines.compute.ray_data import WATCH

with WATCH.over(1.0):
    for _ in range(8):
        time.sleep(0.25)
        {progress}
print("finished")
"""


def ended(progress: str) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-c", BLOCK.format(progress=progress)]
    return subprocess.run(code, capture_output=True, text=True, timeout=120, check=False)


def test_progress_begins_the_seconds_anew() -> None:
    found = ended("WATCH.progress()")
    assert (found.returncode, found.stdout) == (0, "finished\n")


def test_without_progress_the_process_ends_with_a_traceback() -> None:
    found = ended("pass")
    assert found.returncode != 0 and not found.stdout
    assert "Timeout" in found.stderr
