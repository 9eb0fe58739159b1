"""A table that is made chunk by chunk: a Parquet file per chunk at first, and a single file once all chunks are there.

The names of its files carry the fingerprint of the inputs that determine its rows, so a table made with other settings
is never taken for this one. In the finished file each chunk is a row group, so it can still be read by itself.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage.ahead import read_ahead
from pipelines.storage.differences import differences
from pipelines.storage.finite import check_finite
from pipelines.storage.flat import flat, tensors_of
from pipelines.storage.store import Say, Store, fingerprint_of
from pipelines.storage.versions import versions

Listing = Mapping[str, Sequence[str]]
"""Folders and the names of the files in each, as `Store.listing` returns them."""

# Other programs leave files in a table's folder, such as `.DS_Store`, and people do; those are no part of the table.
_CHUNK_FILE = re.compile(r"[0-9a-f]{16}-chunk-(\d{6,18})\.parquet")
_FINISHED_FILE = re.compile(r"[0-9a-f]{16}\.parquet")
# Dictionaries and statistics would hold whole images a second time, and nobody searches in these files.
_OF_A_CHUNK: dict[str, Any] = {
    "compression": "zstd", "write_page_checksum": True, "use_dictionary": False, "write_statistics": False
}  # fmt: skip
_SMALL = 4 * 2**20  # bytes of a file that is read in one request, whatever of it is wanted
_OWN_FILE = re.compile(r"[0-9a-f]{16}(\.parquet|-chunk-|-failed\.json)")


class Failure(NamedTuple):
    """Why an attempt to make a table failed, and whether any other would fail alike."""

    reason: str
    is_final: bool


@dataclass(frozen=True)
class ChunkedTable:
    """A table in one folder of a store. The object describes it; its rows are in the files.

    Args:
        folder: the table's folder, relative to the store.
        inputs: everything that determines the rows, as JSON-able values. Their fingerprint is part of the file names,
            and the inputs themselves are kept in the files' metadata.
        names: those of the models in `inputs`, by the key of their list, for messages.
    """

    folder: str
    inputs: Mapping[str, Any]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of `inputs`, 16 hex digits."""
        return fingerprint_of(self.inputs)

    @property
    def finished_file(self) -> str:
        """Path of the single file of the finished table, relative to the store."""
        return f"{self.folder}/{self.fingerprint}.parquet"

    def chunk_file(self, chunk: int) -> str:
        """Returns the path of the file that holds one chunk until the table is finished."""
        return f"{self.folder}/{self.fingerprint}-chunk-{chunk:06d}.parquet"

    def failed_file(self) -> str:
        """Returns the path of the JSON file that says why a chunk could not be made; it exists only then."""
        return f"{self.folder}/{self.fingerprint}-failed.json"

    def is_finished(self, listing: Listing) -> bool:
        """Tells whether the finished table is in the listing."""
        return f"{self.fingerprint}.parquet" in listing.get(self.folder, ())

    def done_chunks(self, listing: Listing) -> set[int]:
        """Returns the numbers of the chunks that have files of their own in the listing."""
        names = listing.get(self.folder, ())
        found = (_CHUNK_FILE.fullmatch(name) for name in names if name.startswith(self.fingerprint))
        return {int(match[1]) for match in found if match}

    def has_failed(self, listing: Listing) -> bool:
        """Tells whether the last attempt to make the table failed."""
        return f"{self.fingerprint}-failed.json" in listing.get(self.folder, ())

    def failure(self, store: Store, listing: Listing) -> str | None:
        """Returns the reason for which the last attempt failed, or None if none has."""
        if not self.has_failed(listing):
            return None
        return str((store.read_json(self.failed_file()) or {}).get("reason", "the reason was not kept"))

    def final_failure(self, store: Store, listing: Listing) -> str | None:
        """Returns the reason of a failure that would come again, or None: then another attempt may succeed."""
        noted = store.read_json(self.failed_file()) if self.has_failed(listing) else None
        return str(noted.get("reason")) if noted and noted.get("final") is True else None

    def set_aside_others(self, store: Store, listing: Listing, say: Say) -> None:
        """Moves files with another fingerprint from the table's folder to `.stale/`, and says so."""
        names = listing.get(self.folder, ())
        others = [name for name in names if _OWN_FILE.match(name) and not name.startswith(self.fingerprint)]
        if others:
            why = self.why_others(store, others)
            stale = store.set_aside(self.folder, others)
            say(f"{self.folder}: {why}; moved to {stale}")

    def why_others(self, store: Store, names: Sequence[str]) -> str:
        """Says why these files of the table's folder are not this table's, from what the first readable one records."""
        for name in names:
            if name.endswith(".parquet"):
                try:
                    differ = differences(_recorded(store, f"{self.folder}/{name}", "inputs"), self.inputs, self.names)
                except (OSError, ValueError, pa.ArrowException):
                    continue
                if differ:
                    return f"made with other settings or models ({differ})"
        return "made with other settings or models"

    def delete_leftovers(self, store: Store, listing: Listing) -> None:
        """Deletes chunk files whose rows are already in the finished table.

        A run that is killed while it removes its chunk files leaves some behind.
        """
        if self.is_finished(listing):
            store.delete_all([self.chunk_file(chunk) for chunk in self.done_chunks(listing)])

    def unfinished(self, listing: Listing) -> list[str]:
        """Returns the folder, unless the finished table is in the listing."""
        return [] if self.is_finished(listing) else [self.folder]

    def failures(self, store: Store, listing: Listing) -> dict[str, Failure]:
        """Returns, by the folder, why the last attempt failed; empty if none has."""
        reason = self.failure(store, listing)
        if reason is None:
            return {}
        return {self.folder: Failure(reason, self.final_failure(store, listing) is not None)}

    def forget_failure(self, store: Store, listing: Listing) -> None:
        """Deletes the reason for which the last attempt failed, before another attempt."""
        if self.has_failed(listing):
            store.delete(self.failed_file())

    def missing(self, store: Store, listing: Listing, chunks: int) -> Collection[int]:
        """Returns the numbers of the chunks, of this many, that have no file."""
        return frozenset(range(chunks)) - self.done_chunks(listing)

    def write_chunk(self, store: Store, chunk: int, table: pa.Table) -> None:
        """Writes one chunk to a file of its own, atomically."""
        with store.writing(self.chunk_file(chunk)) as stream:
            labelled = flat(table).replace_schema_metadata(self._metadata({"chunk": chunk, "rows": [table.num_rows]}))
            pq.write_table(labelled, stream, **_OF_A_CHUNK)

    def write_failure(self, store: Store, chunk: int, reason: str, final: bool = False) -> None:
        """Records that a chunk could not be made, and why; `final` where another attempt would fail alike."""
        store.write_json(self.failed_file(), {"chunk": chunk, "reason": reason, "final": final})

    def read_chunk(self, store: Store, chunk: int, rows: int) -> pa.Table:
        """Reads one chunk, from its own file or from the finished table.

        Raises OSError or ArrowException if it is missing, damaged or has another number of rows than `rows`, or if a
        number in it is not finite.
        """
        stamp = store.stamp(self.finished_file)
        if stamp is None:
            with store.open_input(self.chunk_file(chunk)) as source:
                table = tensors_of(pq.ParquetFile(source, page_checksum_verification=True).read())
        else:
            try:
                table = self._read_finished(store, chunk, stamp)
            except (OSError, pa.ArrowException):  # another file of the same stamp may have taken its place
                _footer.cache_clear()
                table = self._read_finished(store, chunk, stamp)
        if table.num_rows != rows:
            raise pa.ArrowInvalid(f"{self.folder}: chunk {chunk} has {table.num_rows} rows, not {rows}")
        check_finite(table)
        return table

    def _read_finished(self, store: Store, chunk: int, stamp: tuple[int, int]) -> pa.Table:
        footer = _footer(store, self.finished_file, stamp)
        with store.open_input(self.finished_file) as source:
            return pq.ParquetFile(source, metadata=footer, page_checksum_verification=True).read_row_group(chunk)

    def read(self, store: Store, columns: Sequence[str] | None) -> pa.Table:
        """Reads columns of the finished table, or all of them for None.

        Raises OSError or ArrowException if it is missing or damaged, or a number in any column is not finite.
        """
        with store.open_input(self.finished_file) as source:
            whole = pa.BufferReader(source.read_buffer()) if source.size() <= _SMALL else source
            file = pq.ParquetFile(whole, page_checksum_verification=True)
            wanted = file.schema_arrow.names if columns is None else list(columns)
            numbers = [own.name for own in file.schema_arrow if pa.types.is_floating(own.type)]
            table = file.read(columns=[*wanted, *(name for name in numbers if name not in wanted)])
        check_finite(table)
        return table.select(wanted)

    def finish(self, store: Store, rows: Sequence[int]) -> list[int]:
        """Joins the chunks into the finished file and deletes their own files.

        It is idempotent: after an interruption at any point it can be called again.

        Args:
            store: holds the table.
            rows: the number of rows of every chunk.

        Returns the chunks that turned out to be damaged. If there are any, their files are deleted and nothing is
        joined: they have to be made again first. Raises OSError or ArrowException if joining fails with sound chunks.
        """
        if not store.exists(self.finished_file):
            try:
                self._join(store, rows)
            except (OSError, pa.ArrowException):
                files = [(self.chunk_file(chunk), size) for chunk, size in enumerate(rows)]
                damaged = [chunk for chunk, is_sound in enumerate(are_sound(store, files)) if not is_sound]
                if not damaged:
                    raise
                store.delete_all([self.chunk_file(chunk) for chunk in damaged])
                return damaged
        store.delete_all([self.chunk_file(chunk) for chunk in range(len(rows))])
        return []

    def _join(self, store: Store, rows: Sequence[int]) -> None:
        def read(chunk: int) -> pa.Table:
            return read_whole(store, self.chunk_file(chunk), rows[chunk])

        first = read(0)
        with self.writing(store, first.schema, rows) as write:
            write(first)
            for table in read_ahead(read, range(1, len(rows)), store.reads_ahead(first.nbytes)):
                write(table)

    @contextmanager
    def writing(self, store: Store, schema: pa.Schema, rows: Sequence[int]) -> Iterator[Callable[[pa.Table], None]]:
        """Gives a function that takes chunk after chunk; the finished file appears when the block ends.

        Args:
            schema: the columns, with any metadata. rows: the number of rows of every chunk.
        """
        labelled = schema.with_metadata(self._metadata({"rows": list(rows)}))

        def write(table: pa.Table) -> None:
            writer.write_table(table.replace_schema_metadata(labelled.metadata))

        with (
            store.writing(self.finished_file) as stream,
            pq.ParquetWriter(stream, labelled, compression="zstd", write_page_checksum=True) as writer,
        ):
            yield write

    def _metadata(self, rows: Mapping[str, Any]) -> dict[str, str]:
        """What each file records about itself: fingerprint and rows, the inputs, and the versions that made it."""
        own = {"fingerprint": self.fingerprint, **rows}
        content = {"witness.table": own, "witness.inputs": self.inputs, "witness.versions": versions()}
        return {key: json.dumps(value, sort_keys=True) for key, value in content.items()}

    def about(self, store: Store) -> dict[str, Any]:
        """Returns what the finished file records about itself: `fingerprint`, `rows` of each chunk, and `inputs`.

        Beside that, under `groups`, the rows of each chunk that it really has. Raises OSError, ValueError or
        ArrowException where it is damaged.
        """
        with store.open_input(self.finished_file) as source:
            found = pq.ParquetFile(source).metadata
            groups = [found.row_group(number).num_rows for number in range(found.num_row_groups)]
        table = _recorded(store, self.finished_file, "table")
        return {**table, "inputs": _recorded(store, self.finished_file, "inputs"), "groups": groups}


@lru_cache(maxsize=8)
def _footer(store: Store, path: str, stamp: tuple[int, int]) -> pq.FileMetaData:
    """What stands at the end of a file about every chunk in it: it is large where there are many, so it is read once.

    `stamp`, its size and time of modification, tells it from another file at the same path.
    """
    with store.open_input(path) as source:
        return pq.read_metadata(source)


def recorded_inputs(store: Store, folder: str, names: Sequence[str]) -> dict[str, Any] | None:
    """The inputs of the finished table in a folder, whose files are `names`; None where none is there and readable."""
    for name in names:
        if _FINISHED_FILE.fullmatch(name):
            try:
                return _recorded(store, f"{folder}/{name}", "inputs")
            except (OSError, ValueError, pa.ArrowException):
                continue
    return None


def read_whole(store: Store, path: str, rows: int) -> pa.Table:
    """Reads a whole file of chunks, with as few requests as there can be.

    Raises OSError or ArrowException if it is missing, damaged or has other than `rows` rows, or a number is not finite.
    """
    with store.open_input(path) as source:
        content = source.read_buffer()
    table = tensors_of(pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read())
    if table.num_rows != rows:
        raise pa.ArrowInvalid(f"{path} has {table.num_rows} rows, not {rows}")
    check_finite(table)
    return table


def are_sound(store: Store, files: Sequence[tuple[str, int]]) -> Iterator[bool]:
    """Tells of each file and its number of rows whether it is sound.

    Reads all of it: a truncated file has no footer, and a damaged page has another checksum.
    """

    def is_sound(file: tuple[str, int]) -> bool:
        try:
            read_whole(store, *file)
        except (OSError, pa.ArrowException):
            return False
        return True

    return read_ahead(is_sound, files, store.reads_ahead())


def _recorded(store: Store, path: str, key: str) -> dict[str, Any]:
    """What a file of a table records about itself under this key; {} for what is no record of ours."""
    with store.open_input(path) as source:
        metadata = pq.ParquetFile(source).schema_arrow.metadata or {}
    content = json.loads(metadata.get(f"witness.{key}".encode(), b"{}"))
    return content if isinstance(content, dict) else {}
