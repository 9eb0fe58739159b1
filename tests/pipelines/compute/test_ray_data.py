"""A pipeline does every item once, on CPUs as tasks in processes that stay, on GPUs in actors."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from ray import cloudpickle

from align_core.images import Fit, ImageSetConfig, open_image_set, read_images
from align_core.images.inspection import content_hash
from pipelines.compute.cluster import Worker
from pipelines.compute.images import TestImages as Images
from pipelines.compute.ray_data import run_pipeline
from pipelines.failure import RunFailed
from pipelines.storage.store import Store

ITEMS = 12
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test


@dataclass(frozen=True)
class Loader:
    """Of the loading of networks only the precision in which they compute."""

    precision: Literal["fp32"] = "fp32"


@dataclass(frozen=True)
class Job:
    """What the stages send, with a loader of no network. `device` chooses how Ray Data works; no GPU is touched."""

    store: Store
    images: Images
    device: str
    loader: Loader = field(default_factory=Loader)
    threads: int = 1
    patience: float = 60
    longest: float = 1


class Summing:
    """Sums the pixels of each chunk; tells the process, and how many chunks this object has seen."""

    def __init__(self, job: Job) -> None:
        self.job, self.count = job, 0

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        return {"chunk": item["chunk"], "sum": int(item["pixels"].sum()), "process": os.getpid(), "count": self.count}


class Writing:
    """Writes each chunk only once another one has begun: if that waited for the writing, nobody would ever be done."""

    def __init__(self, job: Job) -> None:
        self.job, self.at_work = job, 0

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        from pipelines.compute.turns import TURNS  # the worker's own: this class is sent to it by value

        folder, chunk = Path(self.job.store.path("")), item["chunk"]
        self.at_work += 1
        assert self.at_work == 1
        (folder / f"begun-{chunk}").touch()
        self.at_work -= 1
        TURNS.end()
        end = time.monotonic() + 60
        while not {file.name for file in folder.glob("begun-*")} - {f"begun-{chunk}"}:
            assert time.monotonic() < end, f"no other chunk was begun while {chunk} waited to be written"
            time.sleep(0.01)
        (folder / f"written-{chunk}").touch()
        return {"chunk": chunk}


def read(job: Job, item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "pixels": job.images.read(item["chunk"])}


def job_on(device: str, folder: Path) -> Job:
    ids = [f"{row:05d}" for row in range(5 * ITEMS)]
    chunks = [range(start, start + 5) for start in range(0, len(ids), 5)]
    config, fit = ImageSetConfig(kind="digits"), Fit(16)
    contents = [content_hash(pixels.tobytes()) for pixels in read_images(open_image_set(config, fit, 1), ids)]
    images = Images(config, fit, 1, image_ids=ids, labels=[0] * len(ids), contents=contents, chunks=chunks)
    return Job(Store(str(folder), "test"), images, device)


def run(
    job: Job,
    items: list[dict[str, Any]] | None = None,
    workers: int = 2,
    work: type = Summing,
    took: Callable[[float, float], object] = lambda waited, used: None,
) -> Iterator[dict[str, Any]]:
    worker = Worker(device="cpu", threads=1, cpus=1, gpus=0, resources={}, wanted=workers)
    items = items or [{"chunk": chunk} for chunk in range(ITEMS)]
    return run_pipeline(items, read, job, work, worker, workers, took)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.slow)])
def test_every_item_is_done_once(ray_cluster: None, tmp_path: Path, device: str) -> None:
    job, turns = job_on(device, tmp_path), list[tuple[float, float]]()
    done = sorted(run(job, took=lambda *turn: turns.append(turn)), key=lambda row: row["chunk"])
    assert len(turns) == (ITEMS if device == "cuda" else 0)
    assert all(set(row) == {"chunk", "sum", "process", "count"} for row in done)
    assert [row["chunk"] for row in done] == list(range(ITEMS))
    assert [row["sum"] for row in done] == [int(job.images.read(chunk).sum()) for chunk in range(ITEMS)]
    processes = {row["process"] for row in done}
    assert os.getpid() not in processes
    for process in processes:  # each process holds one object, which sees all of that process's items
        counts = sorted(row["count"] for row in done if row["process"] == process)
        assert counts == list(range(1, len(counts) + 1))


def test_on_a_gpu_a_chunk_is_written_while_the_next_is_worked_on_and_reported_once_it_is(
    ray_cluster: None, tmp_path: Path
) -> None:
    job = job_on("cuda", tmp_path)
    folder = Path(job.store.path(""))
    folder.mkdir()
    done = []
    for row in run(job, workers=1, work=Writing):
        assert (folder / f"written-{row['chunk']}").exists()
        done.append(row["chunk"])
    assert sorted(done) == list(range(ITEMS))


def test_on_cpus_the_next_stage_finds_the_processes_of_this_one(ray_cluster: None, tmp_path: Path) -> None:
    first, second = ({row["process"] for row in run(job_on("cpu", tmp_path))} for _ in range(2))
    assert first & second


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_of_the_work_itself_is_not_tried_again(ray_cluster: None, tmp_path: Path, device: str) -> None:
    job = job_on(device, tmp_path)
    with pytest.raises(
        RunFailed, match=r"the work on the chunks broke off: .*once the cause is mended, the same command resumes"
    ):
        list(run(job, [{"chunk": ITEMS + 5}]))
