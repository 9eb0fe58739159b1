"""The memory of the driver and of its workers stays flat while a long run crafts and evaluates chunk after chunk."""

import os
import signal
import statistics
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from digits_experiment import Finished
from faulty_runs import PATIENCE, start, wait_for, workers

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("WITNESS_SOAK", "900"))
EVERY = 3.0
GROWTH = 1.05
SLACK = 15 * 2**20


def private_bytes(process: psutil.Process) -> int | None:
    """Memory that no other process shares; None if the process has ended."""
    try:
        return int(process.memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return None


def test_memory_stays_flat(finished: Finished, tmp_path: Path) -> None:
    attacks = ", ".join(
        f"a{number}: {{method: mi, eps: 12/255, steps: 600, step: {number}/2550}}" for number in range(1, 100)
    )
    settings = [f"attacks={{{attacks}}}", "data.test.limit=200", "controls=[]", "variants={}"]
    driver = start(finished, tmp_path, settings=settings)
    wait_for(driver, lambda: any(tmp_path.glob("*/adversarial/*/*/*")), "nothing was crafted")
    seen: dict[int, list[tuple[float, int]]] = defaultdict(list)
    began = time.monotonic()
    own = psutil.Process(driver.pid)
    while (now := time.monotonic() - began) < SECONDS:
        assert driver.poll() is None, "the run was over before its memory was measured; give it more attacks"
        for process in (own, *workers()):
            if (used := private_bytes(process)) is not None:
                seen[process.pid].append((now, used))
        time.sleep(EVERY)
    driver.send_signal(signal.SIGINT)
    driver.wait(timeout=PATIENCE)
    judged = {}
    for pid, samples in seen.items():
        early = [used for at, used in samples if 0.2 * SECONDS < at < 0.4 * SECONDS]
        late = [used for at, used in samples if at > 0.8 * SECONDS]
        if early and late:
            judged[pid] = (statistics.median(early), statistics.median(late))
    print({("driver" if pid == driver.pid else pid): [round(b / 2**20) for b in pair] for pid, pair in judged.items()})
    assert driver.pid in judged and len(judged) >= 2
    for before, after in judged.values():
        assert after < GROWTH * before + SLACK
