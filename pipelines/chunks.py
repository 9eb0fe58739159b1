"""Work by chunks on Ray Data: chunks are decoded by tasks, worked on by actors that hold models, committed one by one.

Ray Data is given only what is missing. Each chunk is written, whole, by the actor that made it, so that whatever
happens to the pipeline, what was finished stays, and the next pipeline does the rest.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from align_core.data import ImageSetConfig, Pixels, read_images
from pipelines.cluster import Worker
from pipelines.failure import RunFailed, reason_of
from pipelines.images import opened
from pipelines.store import Say, Store
from pipelines.table import ChunkedTable

Row = dict[str, Any]
Decode = Callable[[Any, Row], Row]
"""Adds the images of a job's item to it."""

_MOST_BLOCKS = 2_000
_ATTEMPTS = 3


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


def run_pipeline(
    items: Sequence[Row],
    decode: Decode,
    job: Any,
    actor: type,
    worker: Worker,
    workers: int,
) -> Iterator[Row]:
    """Sends each item through `decode(job, item)` and one of `workers` actors `actor(job)`; yields what they return.

    Each item is one chunk's work. Where decoding takes next to nothing the actor does it itself, as `decode` that it is
    given: processes beside it would cost more in starting. Raises RunFailed where Ray Data gives up.
    """
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is ours to show
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
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
    except (ray.exceptions.RayError, ValueError, OSError) as problem:
        raise RunFailed(
            f"the work on the chunks broke off: {reason_of(problem)}. "
            "Finished chunks are kept; the same command goes on from there"
        ) from problem


def _decodes_beside(job: Any) -> bool:
    """Whether reading a chunk takes long enough, or a GPU would wait for it."""
    return job.images.config.kind in ("folder", "parquet") or job.device == "cuda" or not job.store.is_local


def fill(
    store: Store,
    tables: Sequence[ChunkedTable],
    rows: Sequence[int],
    say: Say,
    work: Callable[[dict[str, set[int]]], None],
) -> int:
    """Brings every table to its finished file; returns how many chunks were made.

    Args:
        tables: those that must be there in the end. What other settings made of them is set aside.
        rows: images of each chunk.
        work: makes the chunks that are missing: folder -> chunk numbers.

    Chunks that turn out to be damaged are made again. Raises RunFailed where a table failed or never gets whole.
    """
    made = 0
    for attempt in range(_ATTEMPTS):
        listing = store.listing()
        unfinished = [table for table in tables if not table.is_finished(listing)]
        if attempt == 0:
            for table in tables:
                table.set_aside_others(store, listing, say)
                table.delete_leftovers(store, listing)
        if not unfinished:
            return made
        missing = {}
        for table in unfinished:
            store.delete(table.failed_file())
            missing[table.folder] = set(range(len(rows))) - table.done_chunks(listing)
        missing = {folder: chunks for folder, chunks in missing.items() if chunks}
        if missing:
            work(missing)
            made += sum(map(len, missing.values()))
        damaged = _finish(store, unfinished, rows)
        for folder, chunks in damaged.items():
            say(f"{folder}: {len(chunks)} chunks are damaged or missing and are made again")
        if not damaged:
            return made
    raise RunFailed("some chunks were damaged or missing again and again; is the disk full or failing?")


def _finish(store: Store, tables: Iterable[ChunkedTable], rows: Sequence[int]) -> dict[str, list[int]]:
    """Joins finished tables' chunks, and returns the damaged ones. Raises RunFailed for tables that failed."""
    listing = store.listing()
    failed = {table.folder: table.failure(store, listing) for table in tables}
    whole = [table for table in tables if not failed[table.folder]]
    with ThreadPoolExecutor(4) as pool:
        damaged = list(pool.map(lambda table: table.finish(store, rows), whole))
    reasons = [f"{folder}: {reason}" for folder, reason in failed.items() if reason]
    if reasons:
        said = "\n  ".join(reasons[:10])
        raise RunFailed(
            f"{len(reasons)} tables failed; all others are kept, and the same command tries again:\n  {said}"
        )
    return {table.folder: chunks for table, chunks in zip(whole, damaged, strict=True) if chunks}
