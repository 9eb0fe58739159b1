"""The CPUs that a process may use: those that it is bound to, and no more than the quota of its cgroups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from align_core.cpus import usable_cpus


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))


def machine(root: Path, groups: str, **files: str) -> Path:
    """Writes what the kernel says of a process's cgroups; `files` by path below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for path, content in files.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


V1 = "7:memory:/job\n4:cpu,cpuacct:/job/step\n1:cpuset:/job\n"


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # a part of a CPU counts as a whole one
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),  # a quota above the CPUs there are
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),  # of a group above
        ("0::/../host/only\n", {"cpu.max": "400000 100000\n"}, 4),  # the path is the host's
        (V1, {"cpu/job/step/cpu.cfs_quota_us": "500000\n", "cpu/job/step/cpu.cfs_period_us": "100000\n"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "25000\n"}, 2),
        (V1, {"cpu/job/step/cpu.cfs_quota_us": "-1\n", "cpu/job/step/cpu.cfs_period_us": "100000\n"}, 8),
        (V1, {"memory/job/cpu.cfs_quota_us": "100000\n", "memory/job/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        ("0::/\n", {}, 8),
    ],
)
def test_a_quota_of_cpu_time_limits_the_count(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert usable_cpus(machine(tmp_path, groups, **files)) == expected


@pytest.mark.usefixtures("eight_cpus")
def test_without_cgroups_the_cpus_that_the_process_is_bound_to_count(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


def test_a_process_that_is_bound_to_one_cpu_uses_one() -> None:
    bound = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})"
    code = f"{bound}; from align_core.cpus import usable_cpus; print(usable_cpus())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_nothing_else_asks_how_many_cpus_the_machine_has() -> None:
    root = Path(__file__).parents[2]
    files = [file for room in ("align_core", "pipelines", "tune_spaces") for file in (root / room).rglob("*.py")]
    assert [file.name for file in files if "cpu_count" in file.read_text()] == ["cpus.py"]
