"""Inspects a large image set shard by shard, so that a command that was killed goes on where it was.

What is found in a shard is kept in the store at once, under a name that changes with the settings of the set and with
path, size and modification time of the shard's own files: where one is repaired, or added, all other shards stay. It is
the one thing that is written before every input has passed: it holds no result, and can be deleted at any time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from hashlib import blake2b
from typing import Any, TypedDict, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from align_core.errors import InputError
from align_core.images import Fit, ImageSet, ImageSetConfig
from align_core.images.decoding import Fact
from align_core.images.inspection import Look, looks
from pipelines.compute.here import images_shown
from pipelines.compute.images import opened
from pipelines.experiment.config import ComputeConfig
from pipelines.progress import Bar
from pipelines.stages.manifest_file import size_and_time
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Say, Store, fingerprint_of

SHARDS = f"{SEEN}/shards"
"""The folder of the store for the shards of all image sets."""

LARGE = 20_000
"""The most pictures of a set that is inspected as a whole. Decoding them takes a core two minutes."""
SHARD = 1_000
"""The most pictures of a shard: what a killed command has to read again, and what a worker is given at once."""
SPREAD = 100_000
"""The most pictures that a command inspects itself, though it could connect to Ray: that takes time, too."""
_ATTEMPTS = 3
_FORMAT = 1
"""Raised by hand where the files of shards change, or what is found in an image, so that older ones are made anew."""
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


Cut = Mapping[str, Sequence[str]]
"""An image set in shards: the ids of the images of each, by its name."""


@dataclass(frozen=True)
class Shards:
    """The shards of one image set in the store.

    Args:
        store: where they lie.
        config, fit, channels: how the set is opened.
    """

    store: Store
    config: ImageSetConfig
    fit: Fit
    channels: int | None

    def cut(self, image_set: ImageSet, image_ids: Sequence[str]) -> Cut:
        """Cuts the images of the open set into shards."""
        settings = [_FORMAT, images_shown(self.config).deciding, asdict(self.fit), self.channels]
        state = cache(size_and_time)  # many images may lie in one file
        return {
            fingerprint_of([*settings, [[own, *state(image_set.file_of(own))] for own in shard]]): shard
            for shard in _cut(image_ids)
        }

    def there(self) -> set[str]:
        """The names of the shards that were inspected, of any image set."""
        names = self.store.listing(SHARDS).get(SHARDS, [])
        return {name.removesuffix(".parquet") for name in names}

    def delete(self, names: Iterable[str]) -> None:
        """Deletes the shards of these names; those that are not there are no matter."""
        self.store.delete_all([_file(name) for name in names])

    def write(self, name: str, image_ids: Sequence[str], found: Sequence[Look | str]) -> None:
        """Keeps what was found in the images of one shard."""
        rows = [_row(image_id, own) for image_id, own in zip(image_ids, found, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink, compression="zstd")
        self.store.write(_file(name), bytes(sink.getvalue()))

    def read(self, name: str, image_ids: Sequence[str]) -> list[Look | str] | None:
        """What was found in these images; None where the file is damaged, deleted meanwhile, or one of other images."""
        try:
            table = pq.read_table(pa.BufferReader(self.store.read(_file(name))))
        except (pa.ArrowException, OSError):
            return None
        if not table.schema.equals(_SCHEMA) or table["image_id"].to_pylist() != list(image_ids):
            return None
        return [_found(row) for row in table.to_pylist()]


def _file(name: str) -> str:
    return f"{SHARDS}/{name}.parquet"


def _cut(image_ids: Sequence[str]) -> list[list[str]]:
    """Cuts before every image whose id says so, and where a shard is full.

    So an image that is added or taken out changes its own shard, and no other beyond the next such id.
    """
    shards: list[list[str]] = []
    for image_id in image_ids:
        if not shards or len(shards[-1]) == SHARD or _begins_shard(image_id):
            shards.append([])
        shards[-1].append(image_id)
    return shards


def _begins_shard(image_id: str) -> bool:
    return int.from_bytes(blake2b(image_id.encode(), digest_size=8).digest()) % SHARD == 0


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
        return self._in_shards(image_set, self.shards.cut(image_set, image_ids))

    def _in_shards(self, image_set: ImageSet, cut: Cut) -> Iterator[Look | str]:
        if self.large.keeps and not self.trusting:
            self.shards.delete(cut)
        there = self.shards.there() if self.trusting else set()
        left = sum(len(own) for name, own in cut.items() if name not in there)
        if known := sum(map(len, cut.values())) - left:
            self.say(f"{self.bar.label}: goes on after {known:,} images, which were inspected before")
        if self.large.keeps and self.large.connect is not None and left > SPREAD:
            there = self._by_workers(self.large.connect, cut, there)
        for name, image_ids in cut.items():
            found = self.shards.read(name, image_ids) if name in there else None
            if found is None:
                found = list(self._seen(looks(image_set, image_ids, self.shards.config)))
                if self.large.keeps:
                    self.shards.write(name, image_ids, found)
                yield from found
            else:
                yield from self._with_unreadable_again(image_set, image_ids, found)

    def _with_unreadable_again(
        self, image_set: ImageSet, image_ids: Sequence[str], found: Sequence[Look | str]
    ) -> Iterator[Look | str]:
        """What was found, but images that could not be read are tried again: that may have been the disk's fault."""
        unreadable = [own for own, one in zip(image_ids, found, strict=True) if isinstance(one, str)]
        again = looks(image_set, unreadable, self.shards.config)
        for one in found:
            yield next(again) if isinstance(one, str) else one

    def _seen(self, found: Iterable[Look | str]) -> Iterator[Look | str]:
        for own in found:
            self.bar.advance(1)
            yield own

    def _by_workers(self, connect: Callable[[], None], cut: Cut, there: set[str]) -> set[str]:
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
            items = [_Item(name=name, image_ids=list(own)) for name, own in cut.items() if name not in there]
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
    """What a worker is sent: the name of a shard, and the ids of its images, in order."""

    name: str
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
    shards.write(str(item["name"]), image_ids, found)
    return _Inspected(images=len(image_ids), problem="")
