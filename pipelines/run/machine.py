"""How much memory this machine and its GPUs have."""

import os
import shutil
import subprocess
from pathlib import Path


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: of the machine, or of its container where that has less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups of version 2, and of version 1
        try:
            limits.append(int((root / "sys/fs/cgroup" / name).read_text()))
        except (OSError, ValueError):  # there is none, or it says `max`
            continue
    return min(limits)


def gpu_memory() -> list[int]:
    """Bytes of memory of each GPU of this machine, as NVIDIA's driver says; empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return [int(line) * 2**20 for line in said.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
