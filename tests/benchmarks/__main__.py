"""`make bench`: each line is a ratio of two things measured in this one run, beside the limit it should keep.

The real CIFAR-10 weights are used where they are (see tests/conftest.py), random ones elsewhere: the work is the same.
"""

import argparse
import os
import sys

from pipelines.environment import unset
from tests.benchmarks import crafting, matrix, pipeline, scaling, sweep


def main() -> None:
    """Runs the benchmarks, all or those named."""
    modules = {"crafting": crafting, "pipeline": pipeline, "scaling": scaling, "matrix": matrix, "sweep": sweep}
    benchmarks = {name: module.measure for name, module in modules.items()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *benchmarks], help="which; all of them unless named")
    names = parser.parse_args().names
    if own := unset("workers"):  # read when a process starts: both sides shall have it
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks", *names], {**os.environ, **own})
    for name in names or benchmarks:
        for line in benchmarks[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
