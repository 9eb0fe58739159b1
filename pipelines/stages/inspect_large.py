"""Inspects a large image set shard by shard, so that a command that was killed goes on where it was.

What is found in a shard is kept in the store at once, in a folder beside the file that will hold what is found in the
whole set, and under the same name, which changes with the settings and the files of the set. It is the one thing that
is written before every input has passed: it holds no result, and can be deleted at any time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypedDict, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from align_core.errors import InputError
from align_core.images import Fit, ImageSet, ImageSetConfig, chunked
from align_core.images.decoding import Fact
from align_core.images.inspection import Look, looks
from pipelines.compute.images import opened
from pipelines.experiment.config import ComputeConfig
from pipelines.progress import Bar
from pipelines.storage.store import Say, Store

LARGE = 20_000
"""The most pictures of a set that is inspected as a whole. Decoding them takes a core two minutes."""
SHARD = 1_000
"""The pictures of a shard: what a killed command has to read again, and what a worker is given at once."""
SPREAD = 100_000
"""The most pictures that a command inspects itself, though it could connect to Ray: that takes time, too."""
_ATTEMPTS = 3
_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "unreadable": pa.string(),  # why, or null for an image that can be read
        "in_grey": pa.string(),
        "in_colour": pa.string(),
        "original": pa.string(),
        "is_grey": pa.bool_(),
        "facts": pa.string(),
    }
)


@dataclass(frozen=True)
class LargeSets:
    """How a command inspects large image sets.

    Args:
        keeps: whether it keeps what it finds, shard by shard, which a command that only looks does not.
        connect: connects to Ray, whose workers then inspect the shards of more than `SPREAD` pictures; None where the
            command inspects them all itself.
    """

    keeps: bool = False
    connect: Callable[[], None] | None = None


LOOKS_ONLY = LargeSets()
"""A command that keeps nothing, and inspects large sets itself."""


@dataclass(frozen=True)
class Shards:
    """The shards of one image set in the store.

    Args:
        store, folder: where they lie.
        config, fit, channels: how the set is opened.
    """

    store: Store
    folder: str
    config: ImageSetConfig
    fit: Fit
    channels: int | None

    def there(self) -> set[int]:
        """The numbers of the shards that were inspected."""
        names = self.store.listing(self.folder).get(self.folder, [])
        return {int(stem) for name in names if (stem := name.removesuffix(".parquet")).isdecimal()}

    def delete(self) -> None:
        """Deletes all shards of the set, once the file of the whole set holds what was found in them."""
        self.store.delete_folder(self.folder)

    def write(self, number: int, image_ids: Sequence[str], found: Sequence[Look | str]) -> None:
        """Keeps what was found in the images of one shard."""
        rows = [_row(image_id, own) for image_id, own in zip(image_ids, found, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink, compression="zstd")
        self.store.write(self._file(number), bytes(sink.getvalue()))

    def read(self, number: int, image_ids: Sequence[str]) -> list[Look | str] | None:
        """What was found in these images; None where the file is damaged, deleted meanwhile, or one of other images."""
        try:
            table = pq.read_table(pa.BufferReader(self.store.read(self._file(number))))
        except (pa.ArrowException, OSError):
            return None
        if not table.schema.equals(_SCHEMA) or table["image_id"].to_pylist() != list(image_ids):
            return None
        return [_found(row) for row in table.to_pylist()]

    def _file(self, number: int) -> str:
        return f"{self.folder}/{number:06d}.parquet"


def _row(image_id: str, found: Look | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"image_id": image_id, "unreadable": found}
    facts = " ".join(sorted(found.facts))
    return {
        "image_id": image_id,
        "in_grey": found.in_grey,
        "in_colour": found.in_colour,
        "original": found.original,
        "is_grey": found.is_grey,
        "facts": facts,
    }


def _found(row: Mapping[str, Any]) -> Look | str:
    if row["unreadable"] is not None:
        return str(row["unreadable"])
    return Look(row["in_grey"], row["in_colour"], row["original"], row["is_grey"], _facts(row["facts"]))


@lru_cache
def _facts(text: str) -> frozenset[Fact]:
    """The facts that were written as one text. A million images share a few such sets."""
    known: tuple[Fact, ...] = get_args(Fact)
    return frozenset(fact for fact in known if fact in text.split())


@dataclass(frozen=True)
class Inspector:
    """Looks at the images of one set: in threads and as a whole where they are few, and else shard by shard.

    Args:
        shards: where those of a large set are kept.
        compute: of the experiment: what a worker takes of the cluster.
        large: what the command does about a large set.
        trusting: whether shards are trusted that are there.
        bar: shows how many images were looked at. say: shows a line.
    """

    shards: Shards
    compute: ComputeConfig
    large: LargeSets
    trusting: bool
    bar: Bar
    say: Say

    def __call__(self, image_set: ImageSet, image_ids: Sequence[str]) -> Iterator[Look | str]:
        """What is found in each image, in their order, or why it is unreadable. Raises InputError."""
        if len(image_ids) <= LARGE or not self.shards.config.is_encoded:
            return self._seen(looks(image_set, image_ids, self.shards.config))
        return self._in_shards(image_set, [image_ids[own.start : own.stop] for own in chunked(image_ids, SHARD)])

    def _in_shards(self, image_set: ImageSet, cut: Sequence[Sequence[str]]) -> Iterator[Look | str]:
        if self.large.keeps and not self.trusting:
            self.shards.delete()
        there = self.shards.there() if self.trusting else set()
        left = sum(len(own) for number, own in enumerate(cut) if number not in there)
        if known := sum(map(len, cut)) - left:
            self.say(f"{self.bar.label}: goes on after {known:,} images, which were inspected before")
        if self.large.keeps and self.large.connect is not None and left > SPREAD:
            there = self._by_workers(self.large.connect, cut, there)
        for number, image_ids in enumerate(cut):
            found = self.shards.read(number, image_ids) if number in there else None
            if found is None:
                found = list(self._seen(looks(image_set, image_ids, self.shards.config)))
                if self.large.keeps:
                    self.shards.write(number, image_ids, found)
            yield from found

    def _seen(self, found: Iterable[Look | str]) -> Iterator[Look | str]:
        for own in found:
            self.bar.advance(1)
            yield own

    def _by_workers(self, connect: Callable[[], None], cut: Sequence[Sequence[str]], there: set[int]) -> set[int]:
        """Has the workers of the cluster inspect what is not there; returns what is there then.

        The command itself inspects what they leave, where the work breaks off again and again.
        """
        from pipelines.compute.cluster import room_for, worker_of
        from pipelines.compute.ray_data import PipelineBroke, run_tasks
        from pipelines.compute.starting_nodes import await_node

        connect()
        worker = replace(worker_of(self.compute), device="cpu", threads=1, cpus=1, gpus=0)
        await_node(worker, self.say)
        task = partial(_inspect_shard, self.shards)
        for _ in range(_ATTEMPTS):
            items = [_Item(number=n, image_ids=list(own)) for n, own in enumerate(cut) if n not in there]
            if not items:
                break
            workers = max(1, room_for(worker, spare_cpus=1))  # a local cluster declares one CPU to spare
            try:
                for done in run_tasks(items, task, worker, workers, self.compute.patience):
                    if done["problem"]:
                        raise InputError(done["problem"])
                    self.bar.advance(done["images"])
            except PipelineBroke as problem:
                self.say(f"the inspection broke off ({problem}); it goes on with what is missing")
            there = self.shards.there()
        return there


class _Item(TypedDict):
    """What a worker is sent: the number of a shard, and the ids of its images, in order."""

    number: int
    image_ids: list[str]


class _Inspected(TypedDict):
    """How many images of a shard were looked at, or why the set cannot be read by this worker."""

    images: int
    problem: str


def _inspect_shard(shards: Shards, item: _Item) -> _Inspected:
    """Looks at the images of one shard in this worker, and keeps what it finds."""
    image_ids = [str(image_id) for image_id in item["image_ids"]]
    try:
        image_set = opened(shards.config, shards.fit, shards.channels)
        found = list(looks(image_set, image_ids, shards.config, threads=1))
    except InputError as problem:
        return _Inspected(images=0, problem=str(problem))
    shards.write(int(item["number"]), image_ids, found)
    return _Inspected(images=len(image_ids), problem="")
