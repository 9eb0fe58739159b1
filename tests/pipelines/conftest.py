"""A tiny experiment, run once for all tests that look at what a run leaves or go on from there."""

from pathlib import Path

import pytest
from digits_experiment import Finished, make_weights, write_experiment


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights for the networks of `digits_experiment`."""
    folder = tmp_path_factory.mktemp("weights")
    make_weights(folder)
    return folder


@pytest.fixture(scope="session")
def finished(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny experiment after `witness run`."""
    from pipelines.run import Request, run

    file = write_experiment(tmp_path_factory.mktemp("finished"), weights)
    return Finished(file, run(Request(file)))
