"""How benchmarks that need torch alone measure: seconds, ratios of work in alternation, and peak memory."""

import ctypes
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch

from pipelines.environment import unset

Work = Callable[[], object]


def run_as_workers_do(module: str) -> None:
    """Starts this command again, as `python -m MODULE`, unless memory is kept already as in a worker of the pipeline.

    The C library reads these variables when a process starts.
    """
    if own := unset("workers"):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, **own})


def seconds(work: Work, device: str) -> float:
    """Seconds that the work takes.

    On a CPU with one thread they are seconds of the CPU, to which it adds nothing that others use the machine as well.
    """
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def in_alternation(work: Work, other: Work, rounds: int, device: str) -> tuple[list[float], list[float]]:
    """Seconds of the work, and of the other just before and after it (their mean), `rounds` times in turn."""
    around = [seconds(other, device)]
    own = []
    for _ in range(rounds):
        own.append(seconds(work, device))
        around.append(seconds(other, device))
    return own, [(before + after) / 2 for before, after in pairwise(around)]


def median_ratio(ones: list[float], others: list[float]) -> float:
    """The median of the ratios of the pairs."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def peak_mib(work: Work, device: str) -> float | None:
    """The most memory in MiB that the work held at once, beside what there was before; None where it cannot be seen.

    On a GPU it is that of tensors, on Linux that of the whole process.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that was freed, and kept, would count as being there before
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _resident_kib("VmRSS")
        work()
        return (_resident_kib("VmHWM") - before) / 2**10
    except OSError:
        work()
        return None


def _resident_kib(which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status has no {which}")
    return int(found[1])
