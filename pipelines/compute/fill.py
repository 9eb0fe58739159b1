"""Fills tables chunk by chunk, and joins each as soon as its last chunk is there, whatever happens to the workers.

Only missing chunks are asked for. Where the work breaks off it begins again with the rest, a bounded number of times.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from align_core.cpus import usable_cpus
from align_core.errors import reason_of
from pipelines.compute.ray_data import PipelineBroke
from pipelines.failure import ONCE_MENDED, RunFailed
from pipelines.storage.chunked_table import Failure, Listing
from pipelines.storage.store import Say, Store


class Fillable(Protocol):
    """What is filled chunk by chunk: a `ChunkedTable`, or the tables of a `JointTable`, which are made together."""

    @property
    def folder(self) -> str:
        """Tells it from others, also in messages."""

    def unfinished(self, listing: Listing) -> list[str]:
        """Returns the folders of the tables that are not in finished files."""

    def set_aside_others(self, store: Store, listing: Listing, say: Say) -> None:
        """Moves what other settings made to `.stale/`, and says so."""

    def delete_leftovers(self, store: Store, listing: Listing) -> None:
        """Deletes chunks that are already in finished files."""

    def failures(self, store: Store, listing: Listing) -> Mapping[str, Failure]:
        """Returns why tables failed in the last attempt, by their folders."""

    def forget_failure(self, store: Store, listing: Listing) -> None:
        """Deletes the reasons, before another attempt."""

    def missing(self, store: Store, listing: Listing, chunks: int) -> Collection[int]:
        """Returns the numbers of the chunks, of this many, that are not there."""

    def finish(self, store: Store, rows: Sequence[int]) -> list[int]:
        """Joins what is there; returns the chunks that are damaged or missing, whose files it has deleted."""


Missing = Mapping[str, Collection[int]]
"""Folder of what is filled -> the chunks that it lacks, as its `missing` returns them."""
Work = Callable[[Missing, float], Iterator[tuple[str, int, int]]]
"""Makes missing chunks, each within this many seconds. It yields the folder and the number of each, and of how many
tables it is a chunk. One that failed for some of these tables, or for all, is yielded if others can be joined without.
"""

_FRUITLESS = 3  # attempts in a row that make nothing, before the run gives up
_JOINED_AT_ONCE, _JOINED_FAR_AWAY = 2, 4  # at least; in an object store, a join waits most of the time
_CPUS_OF_A_JOIN = 4  # of this machine: with more, more tables are joined at once, as more workers fill them
_RETRIES = 3


def fill(store: Store, tables: Sequence[Fillable], rows: Sequence[int], say: Say, work: Work, patience: float) -> int:
    """Brings every table to its finished file; returns how many chunks of tables were made.

    Args:
        tables: those that must be finished in the end. Files that other settings made are moved to `.stale`.
        rows: number of images in each chunk.
        work: makes the chunks that are missing.
        patience: seconds that a worker gives one chunk; doubled after every attempt that made nothing.

    Chunks that turn out to be damaged are made again. A table with a failure that would come again is left unfinished,
    which is said. Raises RunFailed where a table failed otherwise or cannot be finished.
    """
    listing = store.listing()
    for table in tables:
        table.set_aside_others(store, listing, say)
        table.delete_leftovers(store, listing)
    made, fruitless, why = 0, 0, "chunks were damaged or missing again and again: is the disk full or failing?"
    given_up: set[str] = set()
    while unfinished := [own for own in tables if not given_up.issuperset(own.unfinished(listing))]:
        if fruitless == _FRUITLESS:
            raise RunFailed(
                f"{_FRUITLESS} attempts in a row finished nothing more ({why}). Where a chunk takes long, raise "
                f"compute.patience. {ONCE_MENDED}"
            )
        filling = Filling(store, unfinished, rows, listing)
        before = made
        try:
            for folder, chunk, count in work(filling.missing, patience * 2**fruitless) if filling.missing else ():
                filling.take(folder, chunk)
                made += count
        except PipelineBroke as problem:
            why = str(problem)
            say(f"the work broke off ({why}); it begins again with what is missing")
        damaged = filling.end()
        for folder, chunks in damaged.items():
            say(f"{folder}: {len(chunks)} chunks are damaged or missing and are made again")
        listing = store.listing()
        given_up = (given_up - {folder for own in unfinished for folder in own.unfinished(listing)}) | _failures(
            store, unfinished, listing, say
        )
        fruitless = 0 if made > before and not damaged else fruitless + 1
    return made


def _failures(store: Store, tables: Sequence[Fillable], listing: Listing, say: Say) -> set[str]:
    """Folders of the tables with a failure that would come again. Raises RunFailed where there is any other failure."""
    found = {folder: own for table in tables for folder, own in table.failures(store, listing).items()}
    final = {folder for folder, failure in found.items() if failure.is_final}
    for folder in sorted(final):
        say(f"{folder}: {found[folder].reason}; all other tables are made")
    reasons = [f"{folder}: {failure.reason}" for folder, failure in found.items() if not failure.is_final]
    if reasons:
        said = "\n  ".join(reasons[:10])
        raise RunFailed(
            f"{len(reasons)} tables failed; all others are kept, and the same command makes these once the causes are "
            f"mended:\n  {said}"
        )
    return final


class Joiner:
    """Joins finished tables, in a process of its own.

    As tasks, joins would run in the processes that have imported torch and hold models, and Ray would start others for
    the chunks meanwhile.
    """

    def join(self, table: Fillable, store: Store, rows: Sequence[int]) -> list[int]:
        """Joins the chunks of a table; returns the chunks that are damaged, and then joins nothing."""
        return table.finish(store, rows)


@cache
def _joiner(node: str, _process: str, at_once: int) -> Any:
    """The joiner of this process of a cluster, which serves every stage: to start one takes over a second of a CPU.

    It runs on the node of this process, so that the loss of any other node leaves it alone.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    joiner = ray.remote(Joiner).options(
        num_cpus=0, max_restarts=-1, max_task_retries=_RETRIES, max_concurrency=at_once, scheduling_strategy=here
    )
    return joiner.remote()


class Filling:
    """One attempt: what is missing, and the joining of tables by Ray tasks as soon as their last chunk is made.

    Attributes:
        missing: the chunks to be made, by table.
    """

    def __init__(
        self,
        store: Store,
        unfinished: Sequence[Fillable],
        rows: Sequence[int],
        listing: Listing,
    ) -> None:
        import ray

        self._store, self._tables = store, {table.folder: table for table in unfinished}
        self._rows = ray.put(list(rows))
        least = _JOINED_AT_ONCE if store.is_local else _JOINED_FAR_AWAY
        self._at_once = max(least, usable_cpus() // _CPUS_OF_A_JOIN)
        here = ray.get_runtime_context()
        self._joiner = _joiner(here.get_node_id(), here.get_worker_id(), self._at_once)
        self._running: dict[Any, str] = {}
        self._waiting: list[str] = []
        self._damaged: dict[str, list[int]] = {}
        missing = {}
        for table in unfinished:
            table.forget_failure(store, listing)
            missing[table.folder] = table.missing(store, listing, len(rows))
        self.missing: Missing = {folder: chunks for folder, chunks in missing.items() if chunks}
        self._made: dict[str, set[int]] = {}
        for folder in missing.keys() - self.missing.keys():
            self._add(folder)

    def take(self, folder: str, chunk: int) -> None:
        """Counts a chunk as done. One that is reported twice, after a worker was lost, counts once."""
        made = self._made.setdefault(folder, set())
        made.add(chunk)
        if len(made) == len(self.missing[folder]):
            self._made[folder] = set()  # frees memory: there may be thousands of tables
            self._add(folder)

    def end(self) -> dict[str, list[int]]:
        """Waits until every complete table is joined. Returns the damaged chunks of those that could not be joined."""
        while self._running:
            self._collect(timeout=None)
        return self._damaged

    def _add(self, folder: str) -> None:
        self._waiting.append(folder)
        self._collect(timeout=0)

    def _collect(self, timeout: float | None) -> None:
        import ray

        if self._running:
            done, _ = ray.wait(list(self._running), timeout=timeout)
            for joined in done:
                folder = self._running.pop(joined)
                if damaged := _result(joined, folder):
                    self._damaged[folder] = damaged
        while self._waiting and len(self._running) < self._at_once:
            folder = self._waiting.pop()
            self._running[self._joiner.join.remote(self._tables[folder], self._store, self._rows)] = folder


def _result(joined: Any, folder: str) -> list[int]:
    import ray

    try:
        return list(ray.get(joined))
    except ray.exceptions.RayError as problem:
        _joiner.cache_clear()  # it may be lost for good
        raise RunFailed(f"the chunks of {folder} could not be joined: {reason_of(problem)}. {ONCE_MENDED}") from problem
