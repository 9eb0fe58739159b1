"""Work by chunks on Ray Data: chunks are read, worked on by processes that hold models, and committed one by one.

Ray Data is given only the chunks that are missing. Each chunk is written, whole, by the process that made it, so that
whatever happens to the pipeline, finished chunks stay, and the next pipeline does the rest.
"""

import faulthandler
import gc
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from align_core.errors import reason_of
from pipelines.compute.cluster import Worker, room_beside_failed_gpus
from pipelines.compute.decoded import DECODED, KEPT_BESIDE_A_GPU
from pipelines.compute.device_failures import GUARD, LeftAlone, check_not_left_alone
from pipelines.compute.images import TestImages
from pipelines.compute.turns import AT_ONCE, TURNS, Turn
from pipelines.failure import ONCE_MENDED, RunFailed
from pipelines.storage.store import Store

if TYPE_CHECKING:
    from pipelines.compute.loading import NetworkLoader

_MOST_BLOCKS = 10_000
_LEFT_ALONE = re.compile(rf"{LeftAlone.__name__}: (.*)")  # Ray Data hands on no more of an exception than its text


class ChunkJob(Protocol):
    """What every worker is sent once: a stage adds what its own workers need."""

    @property
    def store(self) -> Store:
        """The store to which workers commit their results."""

    @property
    def loader(self) -> "NetworkLoader":
        """How the networks are loaded, and in which precision they compute."""

    @property
    def images(self) -> TestImages:
        """The test images, in chunks."""

    @property
    def device(self) -> str:
        """Of the workers: cpu or cuda."""

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""

    @property
    def patience(self) -> float:
        """Seconds after which a worker that shows no progress ends itself."""

    @property
    def longest(self) -> float:
        """How many times its patience one item may take, where it goes on well."""


Job = TypeVar("Job", bound=ChunkJob)
Item = TypeVar("Item", bound=Mapping[str, object])
Done = TypeVar("Done", bound=Mapping[str, object])
Read = Callable[[Job, Item], Item]
"""Adds the images of an item's chunk to the item."""
Work = Callable[[Item], Done]
"""Works on one item; holds models from item to item."""


class PipelineBroke(Exception):
    """Ray Data ended early for a transient reason: a lost node or process, no progress, or a GPU to be left alone."""


class _Watch:
    """Ends this process, with a traceback, where its work shows no progress for so many seconds. Ray starts another.

    The process has to do this by itself: Ray Data only asks a worker to end, and one that hangs cannot respond.
    """

    def __init__(self) -> None:
        self._seconds, self._shown = 0.0, 0.0

    @contextmanager
    def over(self, seconds: float) -> Iterator[None]:
        """Ends the process if the block, since its begin or its last `progress`, lasts longer than these seconds."""
        self._seconds, self._shown = seconds, time.monotonic()
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            yield
        finally:
            self._seconds = 0.0
            faulthandler.cancel_dump_traceback_later()

    def progress(self) -> None:
        """Says that the work goes on: the seconds begin anew. Nothing is done where nothing is watched."""
        if self._seconds and time.monotonic() - self._shown > self._seconds / 10:
            self._shown = time.monotonic()
            faulthandler.dump_traceback_later(self._seconds, exit=True)


WATCH = _Watch()
"""Watches the work of this process on a chunk. Long work calls `WATCH.progress()` now and then."""


def run_pipeline(
    items: Sequence[Item],
    read: Read[Job, Item],
    job: Job,
    work: Callable[[Job], Work[Item, Done]],
    worker: Worker,
    workers: int,
    took: Callable[[float, float], object] = lambda waited, used: None,
) -> Iterator[Done]:
    """Sends each item, one chunk's work, through `read(job, item)` and `work(job)(item)`, in one process.

    Args:
        work: a class whose objects hold models. On GPUs each of `workers` actors holds one object; while it works on an
            item, others are read and the last ones written, in threads, and an item is reported once it is written. On
            CPUs the items are tasks, at most `workers` at a time, and the object stays in the process from task to
            task: Ray keeps the processes of tasks, with all that they have imported, for the next stage, whereas an
            actor's process ends with the stage. Starting a process that imports torch and timm costs 7 s of CPU time.
        took: is told of every turn at a GPU: for how many seconds that had waited for it, and how long it lasted.

    Reading in a process of its own would cost more than it saves: Ray would copy the images four times on their way.

    Yields what the workers return, each item's as soon as it is done. Raises PipelineBroke, also where no item was done
    for twice as long as one may take, and RunFailed where the work itself fails, or where no GPU is left to do it.
    """
    import ray
    import ray.data

    _prepare_ray_data(2 * job.patience * job.longest)
    dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), _MOST_BLOCKS))
    size = min(workers, len(items))
    if worker.gpus:
        gc.collect()  # actors of a pipeline that broke off hold their GPUs until then: Ray Data's objects form cycles
        size = min(size, room_beside_failed_gpus(job.store, worker))
    if job.device == "cuda":
        actors = ray.data.ActorPoolStrategy(
            size=size,
            max_tasks_in_flight_per_actor=AT_ONCE,
            max_concurrent_calls_per_actor=AT_ONCE,
            enable_true_multi_threading=True,
        )
        arguments = (job, work, read)
        worked = dataset.map(_ChunkWorker, fn_constructor_args=arguments, compute=actors, **worker.ray_options)
    else:
        tasks, reference = ray.data.TaskPoolStrategy(size=size), ray.put(job)
        options = {"work": work, "read": read, "job": [reference]}  # in a list, so that Ray leaves it to us
        worked = dataset.map(_work_in_this_process, fn_kwargs=options, compute=tasks, **worker.ray_options)
    for row in _rows(worked):
        if job.device == "cuda":
            took(*(row.pop(name) for name in Turn._fields))
        yield row


def run_tasks(
    items: Sequence[Item], task: Callable[[Item], Done], worker: Worker, workers: int, patience: float
) -> Iterator[Done]:
    """Sends each item through `task(item)`, at most `workers` at a time: for work on CPUs that holds no models.

    Yields what the tasks return, each as soon as it is done. Raises PipelineBroke, also where no item was done in twice
    `patience` seconds, and RunFailed where the work itself fails.
    """
    import ray.data

    _prepare_ray_data(2 * patience)
    dataset = ray.data.from_items([dict(item) for item in items], override_num_blocks=min(len(items), _MOST_BLOCKS))
    tasks = ray.data.TaskPoolStrategy(size=min(workers, len(items)))
    yield from _rows(dataset.map(cast(Any, task), compute=tasks, **worker.ray_options))


def _rows(dataset: Any) -> Iterator[Any]:
    """What the workers of a dataset return, each as soon as it is done. Raises PipelineBroke, and RunFailed."""
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    try:
        yield from dataset.iter_rows()
    except (ray.exceptions.RayError, ExecutionTimeoutError, ValueError, OSError) as problem:
        if left_alone := _LEFT_ALONE.search(str(problem)):
            raise PipelineBroke(left_alone[1]) from problem
        if _is_transient(problem):
            raise PipelineBroke(reason_of(problem)) from problem
        raise RunFailed(
            f"the work on the chunks broke off: {reason_of(problem).rstrip('.')}. {ONCE_MENDED}"
        ) from problem


class _ChunkWorker:
    """What one process holds for one job: its threads, its patience, and the object that works on items."""

    def __init__(self, job: Any, work: Callable[[Any], Work[Any, Any]], read: Read[Any, Any]) -> None:
        self._job, self._make, self._read = job, work, read
        self._work: Work[Any, Any] | None = None
        DECODED.room = KEPT_BESIDE_A_GPU if job.device == "cuda" else 0

    def __call__(self, item: dict[str, Any]) -> Any:
        from align_core.numerics import set_policy  # imports torch, which a process that only joins must not

        if self._work is None:
            check_not_left_alone(self._job.store)
        small = {name: value for name, value in item.items() if isinstance(value, str | int)}
        watch, guard = WATCH.over(self._job.patience), GUARD.over(self._job.store, f"{self._make.__name__} {small}")
        item = self._read(self._job, item)
        with TURNS.take(watch, guard):
            set_policy(self._job.threads, self._job.loader.precision)
            self._work = self._work or self._make(self._job)
            done = self._work(item)
        return {**done, **TURNS.last()._asdict()} if self._job.device == "cuda" else done


_held: dict[str, _ChunkWorker] = {}
"""The worker of the job that this process works on, by the job's id."""


def _work_in_this_process(item: dict[str, Any], work: Any, read: Any, job: list[Any]) -> Any:
    """One task. The job is fetched, and the object made, once per process and job."""
    import ray

    (reference,) = job
    if reference.hex() not in _held:
        _held.clear()  # models of an earlier stage
        _held[reference.hex()] = _ChunkWorker(ray.get(reference), work, read)
    return _held[reference.hex()](item)


def _prepare_ray_data(timeout: float) -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # Witness shows its own progress and its own errors
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Every chunk is a block by itself, so that none waits in memory, or with its progress, for others.
    context.target_max_block_size = 1
    context.execution_no_progress_timeout_s = timeout


def _is_transient(problem: BaseException) -> bool:
    """Whether Ray lost something, or waited too long; what the work itself raises would be raised again."""
    from ray import exceptions
    from ray.data.exceptions import ExecutionTimeoutError

    lost = (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.WorkerCrashedError)
    return isinstance(problem, (*lost, exceptions.NodeDiedError, exceptions.OutOfMemoryError, ExecutionTimeoutError))
