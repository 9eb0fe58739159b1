"""Work by chunks on Ray Data: chunks are decoded by tasks, worked on by actors that hold models, committed one by one.

Ray Data is given only what is missing. Each chunk is written, whole, by the actor that made it, so that whatever
happens to the pipeline, what was finished stays, and the next pipeline does the rest.
"""

import faulthandler
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from align_core.data import ImageSetConfig, read_images
from align_core.decoding import Pixels
from align_core.errors import reason_of
from pipelines.compute.cluster import Worker
from pipelines.compute.images import opened
from pipelines.failure import RunFailed

Row = dict[str, Any]
Decode = Callable[[Any, Row], Row]
"""Adds the images of a job's item to it."""

_MOST_BLOCKS = 2_000


@dataclass(frozen=True)
class TestImages:
    """The test images, cut into chunks: what every stage works on.

    Args:
        config, image_size: where the clean images are, and their size.
        image_ids, labels: of all of them, in order.
        chunks: positions of each chunk.
    """

    config: ImageSetConfig
    image_size: int
    image_ids: list[str]
    labels: list[int]
    chunks: list[range]

    def ids_of(self, chunk: int) -> list[str]:
        """Image ids of a chunk."""
        return self.image_ids[self.chunks[chunk].start : self.chunks[chunk].stop]

    def labels_of(self, chunk: int) -> list[int]:
        """Labels of a chunk."""
        return self.labels[self.chunks[chunk].start : self.chunks[chunk].stop]

    def read(self, chunk: int) -> Pixels:
        """The clean images of a chunk, uint8 [B, C, H, W]."""
        return read_images(opened(self.config, self.image_size), self.ids_of(chunk))


def adversarial_images(table: pa.Table) -> Pixels:
    """The column `image` of crafted images, uint8 [B, C, H, W]."""
    return np.asarray(table["image"].combine_chunks().to_numpy_ndarray())


@contextmanager
def ends_if_stuck(seconds: float) -> Iterator[None]:
    """Inside, this process ends after so many seconds, wherever it hangs, and says where; Ray starts another.

    From within, because what Ray Data gives up is asked to end, and what hangs does not answer.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class PipelineBroke(Exception):
    """Ray Data came to no end, for a reason that need not come again: a lost node or process, or no progress."""


def run_pipeline(
    items: Sequence[Row],
    decode: Decode,
    job: Any,
    actor: type,
    worker: Worker,
    workers: int,
    patience: float,
) -> Iterator[Row]:
    """Sends each item through `decode(job, item)` and one of `workers` actors `actor(job)`; yields what they return.

    Each item is one chunk's work, and is yielded as soon as it is done. Where decoding takes next to nothing the actor
    does it itself, as `decode` that it is given: processes beside it would cost more in starting.
    Raises PipelineBroke, also where nothing was done for twice the `patience` that a worker has with itself, in
    seconds; and RunFailed where the work itself fails.
    """
    import ray
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    _prepare_ray_data(2 * patience)
    dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), _MOST_BLOCKS))
    beside = _decodes_beside(job)
    if beside:
        # Decoding takes no logical CPU: where the actors hold them all, it would wait for one for ever.
        decoders = ray.data.TaskPoolStrategy(size=min(workers, len(items)))
        dataset = dataset.map(partial(decode, job), compute=decoders, num_cpus=0)
    pool = ray.data.ActorPoolStrategy(size=min(workers, len(items)))
    arguments = (job, None if beside else decode)
    worked = dataset.map(actor, fn_constructor_args=arguments, compute=pool, **worker.ray_options)
    try:
        yield from worked.iter_rows()
    except (ray.exceptions.RayError, ExecutionTimeoutError, ValueError, OSError) as problem:
        if _need_not_come_again(problem):
            raise PipelineBroke(reason_of(problem)) from problem
        raise RunFailed(
            f"the work on the chunks broke off: {reason_of(problem)}. "
            "Finished chunks are kept; the same command goes on from there"
        ) from problem


def _prepare_ray_data(timeout: float) -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is ours to show
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # every chunk by itself: none waits in memory, or with its progress, for others
    context.execution_no_progress_timeout_s = timeout


def _need_not_come_again(problem: BaseException) -> bool:
    """Whether Ray lost something, or waited too long; what the work itself raises would be raised again."""
    from ray import exceptions
    from ray.data.exceptions import ExecutionTimeoutError

    lost = (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.WorkerCrashedError)
    return isinstance(problem, (*lost, exceptions.NodeDiedError, exceptions.OutOfMemoryError, ExecutionTimeoutError))


def _decodes_beside(job: Any) -> bool:
    """Whether reading a chunk takes long enough, or a GPU would wait for it."""
    return job.images.config.kind in ("folder", "parquet") or job.device == "cuda" or not job.store.is_local
