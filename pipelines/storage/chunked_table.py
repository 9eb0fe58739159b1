"""A table that is made chunk by chunk: a Parquet file per chunk while it is under way, one file when it is finished.

The fingerprint of what it depends on is in the names of its files. In the finished file each chunk is a row group.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage.store import Say, Store, fingerprint_of
from pipelines.storage.versions import versions

Listing = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ChunkedTable:
    """The table in one folder of the store.

    Args:
        folder: relative to the store.
        inputs: what determines its content; its fingerprint names the files, and it is kept in their metadata.
    """

    folder: str
    inputs: Mapping[str, Any]

    @cached_property
    def fingerprint(self) -> str:
        """Of the inputs."""
        return fingerprint_of(self.inputs)

    @property
    def finished_file(self) -> str:
        """The one file of the finished table."""
        return f"{self.folder}/{self.fingerprint}.parquet"

    def chunk_file(self, chunk: int) -> str:
        """The file of one chunk while the table is under way."""
        return f"{self.folder}/{self.fingerprint}-chunk-{chunk:06d}.parquet"

    def failed_file(self) -> str:
        """Holds the reason where a chunk could not be made."""
        return f"{self.folder}/{self.fingerprint}-failed.json"

    def is_finished(self, listing: Listing) -> bool:
        """Whether the finished file is there."""
        return f"{self.fingerprint}.parquet" in listing.get(self.folder, ())

    def done_chunks(self, listing: Listing) -> set[int]:
        """The chunks that are there as files of their own."""
        start = f"{self.fingerprint}-chunk-"
        names = (name for name in listing.get(self.folder, ()) if name.startswith(start))
        return {int(name.removeprefix(start).removesuffix(".parquet")) for name in names}

    def has_failed(self, listing: Listing) -> bool:
        """Whether a chunk could not be made."""
        return f"{self.fingerprint}-failed.json" in listing.get(self.folder, ())

    def failure(self, store: Store, listing: Listing) -> str | None:
        """Why it failed last time, if it did."""
        if not self.has_failed(listing):
            return None
        return (store.read_json(self.failed_file()) or {}).get("reason")

    def set_aside_others(self, store: Store, listing: Listing, say: Say) -> None:
        """Files that another fingerprint made go to `.stale`, said aloud."""
        others = [name for name in listing.get(self.folder, ()) if not name.startswith(self.fingerprint)]
        if others:
            place = store.set_aside(self.folder, others)
            say(f"{self.folder}: made with other settings or models; moved to {place}")

    def delete_leftovers(self, store: Store, listing: Listing) -> None:
        """Chunks that a finished table holds already: a run was killed while it removed them."""
        if self.is_finished(listing):
            for chunk in self.done_chunks(listing):
                store.delete(self.chunk_file(chunk))

    def write_chunk(self, store: Store, chunk: int, table: pa.Table) -> None:
        """One chunk, whole or not at all."""
        with store.writing(self.chunk_file(chunk)) as stream:
            labelled = table.replace_schema_metadata(self._about({"chunk": chunk, "rows": [table.num_rows]}))
            pq.write_table(labelled, stream, compression="zstd", write_page_checksum=True)

    def write_failure(self, store: Store, chunk: int, reason: str) -> None:
        """Notes that a chunk could not be made."""
        store.write_json(self.failed_file(), {"chunk": chunk, "reason": reason})

    def read_chunk(self, store: Store, chunk: int, rows: int) -> pa.Table:
        """One chunk, from its own file or the finished table. Raises OSError or ArrowException if it is damaged."""
        own = store.exists(self.chunk_file(chunk))
        with store.open_input(self.chunk_file(chunk) if own else self.finished_file) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            table = file.read() if own else file.read_row_group(chunk)
        if table.num_rows != rows:
            raise pa.ArrowInvalid(f"{self.folder}: chunk {chunk} has {table.num_rows} rows, not {rows}")
        return table

    def read(self, store: Store, columns: Sequence[str]) -> pa.Table:
        """Columns of the finished table."""
        with store.open_input(self.finished_file) as source:
            return pq.ParquetFile(source, page_checksum_verification=True).read(columns=list(columns))

    def finish(self, store: Store, rows: Sequence[int]) -> list[int]:
        """Joins the chunks, of `rows` rows each, into the finished file and removes them. May be broken off, and done
        again, at any point.

        Returns the chunks that turned out to be damaged: these are removed, nothing is joined, and they must be made
        again.
        """
        if not store.exists(self.finished_file):
            try:
                self._join(store, rows)
            except (OSError, pa.ArrowException):
                damaged = [chunk for chunk, size in enumerate(rows) if not self._is_whole(store, chunk, size)]
                if not damaged:
                    raise
                for chunk in damaged:
                    store.delete(self.chunk_file(chunk))
                return damaged
        for chunk in range(len(rows)):
            store.delete(self.chunk_file(chunk))
        return []

    def _join(self, store: Store, rows: Sequence[int]) -> None:
        with store.writing(self.finished_file) as stream:
            first = self.read_chunk(store, 0, rows[0])
            schema = first.schema.with_metadata(self._about({"rows": list(rows)}))
            with pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True) as writer:
                for chunk, size in enumerate(rows):
                    table = self.read_chunk(store, chunk, size) if chunk else first
                    writer.write_table(table.replace_schema_metadata(schema.metadata))

    def _is_whole(self, store: Store, chunk: int, rows: int) -> bool:
        """Read to the end: the footer tells a truncated file, the pages' checksums a damaged one."""
        try:
            self.read_chunk(store, chunk, rows)
        except (OSError, pa.ArrowException):
            return False
        return True

    def _about(self, what: Mapping[str, Any]) -> dict[str, str]:
        """What each file says of itself: whose it is, of which rows, what determined it, and which versions made it."""
        own = {"fingerprint": self.fingerprint, **what}
        about = {"witness.table": own, "witness.inputs": self.inputs, "witness.versions": versions()}
        return {key: json.dumps(value, sort_keys=True) for key, value in about.items()}

    def about(self, store: Store) -> dict[str, Any]:
        """What the finished file says of itself: `fingerprint` and `rows` of each chunk, and `inputs`."""
        with store.open_input(self.finished_file) as source:
            metadata = pq.ParquetFile(source).schema_arrow.metadata or {}
        said = {key: json.loads(metadata.get(f"witness.{key}".encode(), b"{}")) for key in ("table", "inputs")}
        return {**said["table"], "inputs": said["inputs"]}
