"""Fixtures of many tests: an experiment on digits that is run once, a tiny one, an object store, a schedule."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from digits_experiment import Finished, make_weights, write_experiment
from empty_store import put_empty_store
from hand_made import HandMade
from job_cluster import running_cluster
from reasons_by_hand import reasoned
from s3_server import S3Server, s3_server
from schedule_on_cluster import STAND_IN, ScheduleOnCluster
from tiny_experiment import write_tiny_experiment

from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.schedule import scheduler
from pipelines.schedule.jobs import JobServer
from pipelines.stages.blueprint import Blueprint


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of the networks of `digits_experiment`."""
    folder = tmp_path_factory.mktemp("weights")
    make_weights(folder)
    return folder


@pytest.fixture(scope="session")
def finished(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The digits experiment after `witness run`."""
    file = write_experiment(tmp_path_factory.mktemp("finished"), weights)
    return Finished(file, run(Request(file)))


@pytest.fixture(scope="session")
def with_reasons(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A finished experiment whose reasons were measured; no test changes it."""
    return reasoned(tmp_path_factory.mktemp("reasons"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One object store for all tests, each of which uses a folder of its own."""
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as server:
        yield server


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny experiment, which no test changes."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_experiment(folder)
    return folder


@pytest.fixture
def tiny_blueprint(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Blueprint]:
    """Makes the blueprint of the tiny experiment with some keys set, such as "seed=1;targets=[a, b]"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda settings: open_blueprint(Request(tiny_folder / "tiny.yaml", settings.split(";"), quiet=True))


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the job server of a cluster whose `witness` command is a stand-in that does no work."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "witness").write_text(STAND_IN)
    (folder / "witness").chmod(stat.S_IRWXU)
    # Ray keeps the token of the first cluster for the whole process, so this cluster must ask for none.
    with running_cluster(folder, RAY_AUTH_MODE="disabled", PATH=f"{folder}:{os.environ['PATH']}") as (server, _):
        end = time.monotonic() + 90
        while True:
            try:
                JobServer(server).submit("first", "true", None, (), {})
                break
            except RuntimeError:
                assert time.monotonic() < end
                time.sleep(0.5)
        yield server


@pytest.fixture(scope="module")
def schedule_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{put_empty_store(tmp_path_factory.mktemp('tracking'))}"


@pytest.fixture
def on_cluster(
    tmp_path: Path, job_server: str, schedule_database: str, monkeypatch: pytest.MonkeyPatch
) -> ScheduleOnCluster:
    """A schedule of one entry, due every minute, on the cluster of `job_server`."""
    monkeypatch.setattr(scheduler, "_GRACE_S", 1.0)
    return ScheduleOnCluster(tmp_path, job_server, schedule_database)
