"""What tests share: one small Ray cluster per test run, and where the real CIFAR-10 files may be."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.environment import set_defaults

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """A shell's background job ignores Ctrl-C, and hands that on: the tests that send one would fail there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster for every test that needs Ray; `witness` in the same process works on it.

    `mock_gpu` stands in for a GPU: scheduling by it is tested where there is none.
    """
    import logging

    import ray

    set_defaults("ray")
    ray.init(
        "local", num_cpus=3, resources={"mock_gpu": 1}, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder of real CIFAR-10 images and weights; skips, with the reason, where it is not."""
    folder = Path(os.environ.get("WITNESS_CIFAR10", REPOSITORY.parent / "shared" / "data" / "cifar10"))
    if not folder.is_dir():
        pytest.skip(f"no real CIFAR-10 files at {folder}; name their folder in $WITNESS_CIFAR10")
    return folder
