"""Networks are trained and aligned to the same bytes, whatever is killed while that is under way, and whenever.

The stage `align` of the digits experiment is run 25 times. A driver or a worker process is killed at a random moment of
each run, up to three times, and the same command is given again until it succeeds.
"""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from digits_experiment import Finished
from faulty_runs import PATIENCE, assert_same_networks, kill, start, wait_for, workers

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("WITNESS_FAULTS", "25"))
STRUCK: Counter[str] = Counter()


@pytest.mark.parametrize("number", range(RUNS))
def test_the_same_weights_after_kills_during_align(finished: Finished, tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    codes, struck = [], []
    for _ in range(rng.randint(1, 3)):
        driver = start(finished, tmp_path, command="align", settings=["align.checkpoint_steps=1"])
        wait_for(driver, lambda: bool(workers()), "the run ended before its fault")
        time.sleep(rng.uniform(0, 6))
        if driver.poll() is None:
            struck.append(kill(("driver", "process")[number % 2], driver, rng))
        codes.append(driver.wait(timeout=PATIENCE))
        if codes[-1] == 0:  # it recovered by itself, and nothing is left to strike at
            break
    codes.append(
        start(finished, tmp_path, command="align", settings=["align.checkpoint_steps=1"]).wait(timeout=PATIENCE)
    )
    log = (tmp_path / "log.txt").read_text(errors="replace")
    assert codes[-1] == 0, log
    assert struck, "nothing was killed"
    if "driver" not in struck:
        assert set(codes) == {0}, log  # the run must recover by itself
    assert_same_networks(finished, tmp_path)
    STRUCK.update(struck)
    print(f"\n{number}: {struck}, exit codes {codes}; so far {dict(STRUCK)}")
