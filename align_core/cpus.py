"""How many CPUs this process may use: fewer than the machine has where it is bound to some or has a quota of time."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """Returns the number of CPUs that this process may use, at least 1.

    It is the number that the scheduler may place it on (`taskset`, Slurm, cpusets), or less where a cgroup of the
    process or one above it limits its time, as containers do: `cpu.max` in version 2, `cpu.cfs_quota_us` in version 1.
    A part of a CPU counts as a whole one.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    # Only Linux tells what a process is bound to.
    placed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([placed, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The limits, in CPUs, of the process's cgroups and of those above them; see the manual page cgroups(7)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # In a container the path may be one that only the host sees; its own group is then what is mounted.
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            quota = _quota(mounted / folder, is_first_version=bool(controllers))
            if quota is not None:
                yield quota


def _quota(folder: Path, is_first_version: bool) -> float | None:
    """The limit of one cgroup in CPUs: microseconds of CPU time in each period, over the period. None: no limit."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_first_version else ("cpu.max",)
    try:
        quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
    except (OSError, ValueError):  # there is no such file, or it says `max`
        return None
    return quota / period if quota > 0 and period > 0 else None
