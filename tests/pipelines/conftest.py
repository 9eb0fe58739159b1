"""Experiments that many tests look at: one on digits, run once, and a tiny one, to make plans of."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from digits_experiment import Finished, make_weights, write_experiment
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
