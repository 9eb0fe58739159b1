"""`make bench`: each line is a ratio of two times that were measured in the same run, beside its limit.

The real CIFAR-10 weights are used where the machine has them (see tests/conftest.py), and random ones elsewhere: the
amount of work is the same.
"""

import argparse
import os
import sys

from pipelines.environment import unset
from tests.benchmarks import crafting, matrix, pipeline, scaling, sweep


def main() -> None:
    """Runs the benchmarks that are named on the command line, or all of them."""
    modules = {"crafting": crafting, "pipeline": pipeline, "scaling": scaling, "matrix": matrix, "sweep": sweep}
    benchmarks = {name: module.measure for name, module in modules.items()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *benchmarks], help="the benchmarks to run (default: all)")
    names = parser.parse_args().names
    if own := unset("workers"):  # read when a process starts, so that both sides of a ratio need it
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks", *names], {**os.environ, **own})
    for name in names or benchmarks:
        for line in benchmarks[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
