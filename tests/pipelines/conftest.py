"""What many tests look at: an experiment on digits, run once, a tiny one to make plans of, and an object store."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from digits_experiment import Finished, make_weights, write_experiment
from s3_server import S3Server, s3_server
from tiny_experiment import write_tiny_experiment

from pipelines.plan import Plan
from pipelines.run import Request, make_plan, run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights for the networks of `digits_experiment`."""
    folder = tmp_path_factory.mktemp("weights")
    make_weights(folder)
    return folder


@pytest.fixture(scope="session")
def finished(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The digits experiment after `witness run`."""
    file = write_experiment(tmp_path_factory.mktemp("finished"), weights)
    return Finished(file, run(Request(file)))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An object store for all tests; each keeps to a folder of its own."""
    with s3_server(tmp_path_factory.mktemp("s3") / "said.txt") as server:
        yield server


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the tiny experiment; it is left as it is."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_experiment(folder)
    return folder


@pytest.fixture
def tiny_plan(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plan]:
    """Makes the plan of the tiny experiment with some keys set, `;` between them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda settings: make_plan(Request(tiny_folder / "tiny.yaml", settings.split(";"), quiet=True))
