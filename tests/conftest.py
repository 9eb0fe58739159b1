"""Fixtures of all tests: one small Ray cluster for the whole session, and the folder of the real CIFAR-10 files."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.environment import set_defaults

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_handled() -> None:
    """Restores SIGINT: a background job of a shell inherits it as ignored, and tests that send it would fail there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cache_of_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which workers of the tests' cluster keep what they fetch from object stores."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def ray_cluster(cache_of_workers: Path) -> Iterator[None]:
    """One local cluster for every test that needs Ray; `witness` in the same process uses it.

    The resource `mock_gpu` stands for a GPU, so that scheduling by resources can be tested without one.
    """
    import logging

    import ray

    set_defaults("ray")
    with pytest.MonkeyPatch.context() as patch:
        # A cluster that exists gets no modules from an experiment, so its workers find those of the tests here.
        patch.setenv("PYTHONPATH", f"{REPOSITORY / 'tests/pipelines'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("WITNESS_CACHE", str(cache_of_workers))
        ray.init(
            "local", num_cpus=3, resources={"mock_gpu": 1}, include_dashboard=False, log_to_driver=False,
            logging_level=logging.ERROR,
        )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder of real CIFAR-10 images and weights; skips the test if there is none on this machine."""
    folder = Path(os.environ.get("WITNESS_CIFAR10", REPOSITORY.parent / "shared" / "data" / "cifar10"))
    if not folder.is_dir():
        pytest.skip(f"no real CIFAR-10 files at {folder}; name their folder in $WITNESS_CIFAR10")
    return folder
