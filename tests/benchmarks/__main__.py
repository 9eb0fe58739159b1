"""`make bench`: each line is a ratio of two times that were measured in the same run, beside its limit.

The real CIFAR-10 weights are used where the machine has them (see tests/conftest.py), and random ones elsewhere: the
amount of work is the same.
"""

import argparse

from tests.benchmarks import (
    busy,
    crafting,
    evaluation,
    field_size,
    matrix,
    packages,
    pipeline,
    scaling,
    sweep,
    training,
)
from tests.benchmarks.clock import run_as_workers_do


def main() -> None:
    """Runs the benchmarks that are named on the command line, or all of them."""
    modules = (
        crafting, training, evaluation, packages, pipeline, scaling, matrix, sweep, busy, field_size,
    )  # fmt: skip
    benchmarks = {module.__name__.rpartition(".")[2]: module.measure for module in modules}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *benchmarks], help="the benchmarks to run (default: all)")
    names = parser.parse_args().names
    run_as_workers_do("tests.benchmarks")  # both sides of a ratio need it
    for name in names or benchmarks:
        for line in benchmarks[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
