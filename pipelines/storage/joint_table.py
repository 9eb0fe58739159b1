"""Tables over the same rows that are made together: one file per chunk for all of them, split when they are joined.

Some hundred networks predict on the same images. A file per chunk and network would be millions of small files, each of
which an object store lets one wait for. So what is made of a chunk at one time is one *joint file*, in a folder of its
own, with the columns that all tables share and those of each table. When all chunks are there, the tables are written
to their own folders, as if each had been made by itself, and the joint files are deleted.

* *What a joint file holds* stands in its metadata, table by table with their fingerprints, and the hash of that is the
  start of its name. So nothing is mixed where networks come, go or change: the file goes on counting for the tables
  that are still wanted as they were, and what they lack is written to further files, of the same chunk or of others.
* *What is done* follows from one listing. Where a name is not that of tables that are made together now, or of those
  among them that are unfinished, one file of this name is opened to see what it holds.
* *A table that fails* on a chunk is left out of its file, which holds the others.
* *Chunks in files of their own*, as `ChunkedTable.write_chunk` leaves them, count as well.
* *A damaged file* is found when tables are joined, and deleted: its chunk is missing again.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage.ahead import read_ahead
from pipelines.storage.chunked_table import ChunkedTable, Failure, Listing, are_sound, read_whole
from pipelines.storage.store import Say, Store, fingerprint_of

Held = Mapping[str, str]
"""What a joint file holds: the folder of each table, and its fingerprint."""
_KEY = b"witness.tables"


@dataclass(frozen=True)
class JointFolder:
    """Where the joint files of some tables lie until the tables are finished.

    Args:
        folder: relative to the store; nothing else lies in it.
        groups: the tables that are made together, for one group after the other. All have the same rows.
        parent: a folder that holds the folders of all these tables.
    """

    folder: str
    groups: tuple[tuple[ChunkedTable, ...], ...]
    parent: str

    @property
    def tables(self) -> list[ChunkedTable]:
        """The tables of all groups."""
        return [table for group in self.groups for table in group]

    def done_chunks(self, store: Store, listing: Listing) -> dict[str, Collection[int]]:
        """Returns, by the folder of each table, the numbers of its chunks that are there, unless it is finished."""
        joint = list(self.files(store, listing).values())
        return {
            table.folder: table.done_chunks(listing).union(*(own.chunks for own in joint if own.holds(table)))
            for table in self.tables
        }

    def files(self, store: Store, listing: Listing) -> dict[str, "JointFiles"]:
        """Returns the joint files that are there, by the start of their names. Deletes nothing."""
        chunks: dict[str, set[int]] = {}
        for name in listing.get(self.folder, ()):
            start, _, number = name.removesuffix(".parquet").partition("-chunk-")
            if number.isdecimal():
                chunks.setdefault(start, set()).add(int(number))
        known = self._expected(listing) if chunks else {}
        found = {}
        for start, own in chunks.items():
            held = known.get(start) or _read_held(store, [_file(self.folder, start, chunk) for chunk in sorted(own)])
            found[start] = JointFiles(self.folder, start, held, frozenset(own))
        return found

    def _expected(self, listing: Listing) -> dict[str, Held]:
        """What joint files hold as a rule: all tables of a group, or those that are not finished; by their names."""
        expected: dict[str, Held] = {}
        for group in self.groups:
            for tables in (group, [table for table in group if not table.is_finished(listing)]):
                held = {table.folder: table.fingerprint for table in tables}
                expected[fingerprint_of(held)] = held
        return expected

    def is_wanted(self, files: "JointFiles") -> bool:
        """Tells whether joint files hold anything that is one of the tables, whether it is finished or not."""
        return any(files.holds(table) for table in self.tables)

    def leftovers(self, store: Store, listing: Listing) -> list[str]:
        """Returns the paths of the joint files all of whose tables are finished, as far as they are wanted."""
        unfinished = [table for table in self.tables if not table.is_finished(listing)]
        files = [own for own in self.files(store, listing).values() if self.is_wanted(own)]
        return [path for own in files if not any(map(own.holds, unfinished)) for path in own.paths()]

    def set_aside_others(self, store: Store, listing: Listing, say: Say) -> None:
        """Moves the joint files that hold nothing of these tables to `.stale/`, and says so."""
        others = [own for own in self.files(store, listing).values() if not self.is_wanted(own)]
        names = [path.rpartition("/")[2] for own in others for path in own.paths()]
        if names:
            stale = store.set_aside(self.folder, names)
            say(f"{self.folder}: made with other settings, models or targets; moved to {stale}")


@dataclass(frozen=True)
class JointFiles:
    """The joint files of one folder that hold the same tables, each of them for another chunk."""

    folder: str
    start: str
    held: Held
    chunks: frozenset[int]

    def holds(self, table: ChunkedTable) -> bool:
        """Tells whether the table is one of them, made with the same inputs."""
        return self.held.get(table.folder) == table.fingerprint

    def paths(self) -> list[str]:
        """The paths of the files, in the order of their chunks."""
        return [_file(self.folder, self.start, chunk) for chunk in sorted(self.chunks)]


@dataclass(frozen=True)
class JointTable:
    """One group of a joint folder: the tables that are made together. It is filled as a `ChunkedTable` is.

    Args:
        within: the folder and all of its groups. group: the number of this one.
        shared: the columns that the tables have in common, with the same content.
    """

    within: JointFolder
    group: int
    shared: tuple[str, ...]

    @property
    def tables(self) -> tuple[ChunkedTable, ...]:
        """The tables of this group."""
        return self.within.groups[self.group]

    @property
    def folder(self) -> str:
        """Names the group, in messages too: the folder and, where there are several, the number of the group."""
        return self.within.folder + (f" (part {self.group + 1})" if len(self.within.groups) > 1 else "")

    def is_finished(self, listing: Listing) -> bool:
        """Tells whether every table is finished."""
        return all(table.is_finished(listing) for table in self.tables)

    def set_aside_others(self, store: Store, listing: Listing, say: Say) -> None:
        """Moves what other settings made to `.stale/`; the first group does so for the joint files of them all."""
        for table in self.tables:
            table.set_aside_others(store, listing, say)
        if self.group == 0:
            self.within.set_aside_others(store, listing, say)

    def delete_leftovers(self, store: Store, listing: Listing) -> None:
        """Deletes chunks whose rows are already in finished tables."""
        self._clean(store, listing)

    def unfinished(self, listing: Listing) -> list[str]:
        """Returns the folders of the tables that are not finished."""
        return [table.folder for table in self.tables if not table.is_finished(listing)]

    def failures(self, store: Store, listing: Listing) -> dict[str, Failure]:
        """Returns why tables failed in the last attempt, by their folders."""
        return dict(chain.from_iterable(table.failures(store, listing).items() for table in self.tables))

    def forget_failure(self, store: Store, listing: Listing) -> None:
        """Deletes the reasons for which tables failed, before another attempt."""
        for table in self.tables:
            table.forget_failure(store, listing)

    def missing(self, store: Store, listing: Listing, chunks: int) -> Mapping[int, tuple[int, ...]]:
        """Returns the chunks, of this many, that any table lacks, with the positions of those tables in the group."""
        there = self.within.done_chunks(store, listing)
        done = [range(chunks) if table.is_finished(listing) else there[table.folder] for table in self.tables]
        same: dict[tuple[int, ...], tuple[int, ...]] = {}  # there may be very many chunks, and they lack the same
        found = {}
        for chunk in range(chunks):
            lacking = tuple(position for position, own in enumerate(done) if chunk not in own)
            if lacking:
                found[chunk] = same.setdefault(lacking, lacking)
        return found

    def write_chunk(self, store: Store, chunk: int, made: Mapping[int, pa.Table]) -> None:
        """Writes what was made of one chunk to one file, atomically.

        Args:
            made: the rows of each table, by its position in the group. Those that failed are left out.
        """
        tables = [(self.tables[position], rows) for position, rows in made.items()]
        held = {table.folder: table.fingerprint for table, _ in tables}
        _, first = tables[0]
        columns = {name: first[name] for name in self.shared}
        for table, rows in tables:
            columns |= {f"{table.folder}/{name}": rows[name] for name in rows.column_names if name not in self.shared}
        content = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(held)})
        with store.writing(_file(self.within.folder, fingerprint_of(held), chunk)) as stream:
            pq.write_table(content, stream, compression="zstd", write_page_checksum=True)

    def finish(self, store: Store, rows: Sequence[int]) -> list[int]:
        """Writes the tables whose chunks are all there to their folders, and deletes joint files that none needs.

        It reads each file once, and holds one chunk in memory, and of an object store the next ones. After an
        interruption at any point it can be called again. Where joins of two groups end at once, the later one finds
        that nobody needs the files that both read.

        Args:
            rows: the number of rows of every chunk.

        Returns the chunks that turned out to be damaged or missing; a table that failed may lack some. The files of
        damaged ones are deleted, and no table that needs them is written.
        """
        listing = self._listing(store)
        there, chunks = self.within.done_chunks(store, listing), set(range(len(rows)))
        absent = {
            table.folder: chunks.difference(there[table.folder])
            for table in self.tables
            if not table.is_finished(listing)
        }
        whole = [table for table in self.tables if absent.get(table.folder) == set()]
        paths = self._paths(store, listing, whole)
        try:
            self._split(store, whole, paths, rows)
        except (OSError, pa.ArrowException):
            needed = {path: chunk for own in paths for chunk, path in own.items()}
            sound = are_sound(store, [(path, rows[chunk]) for path, chunk in needed.items()])
            damaged = [path for path, is_sound in zip(needed, sound, strict=True) if not is_sound]
            if not damaged:
                raise
            store.delete_all(damaged)
            return sorted({needed[path] for path in damaged})
        self._clean(store, self._listing(store))
        lost = [absent[t.folder] for t in self.tables if t.folder in absent and not t.has_failed(listing)]
        return sorted(set().union(*lost))

    def _listing(self, store: Store) -> Listing:
        return store.listing(self.within.parent) | store.listing(self.within.folder)

    def _clean(self, store: Store, listing: Listing) -> None:
        """Deletes what finished tables hold: chunks in files of their own, and joint files that no table needs."""
        for table in self.tables:
            table.delete_leftovers(store, listing)
        store.delete_all(self.within.leftovers(store, listing))

    def _paths(self, store: Store, listing: Listing, tables: Sequence[ChunkedTable]) -> list[dict[int, str]]:
        """For each table, the file in which each of its chunks is."""
        joint = list(self.within.files(store, listing).values())
        found = []
        for table in tables:
            own = {chunk: table.chunk_file(chunk) for chunk in table.done_chunks(listing)}
            for files in joint:
                if files.holds(table):
                    own |= {chunk: _file(files.folder, files.start, chunk) for chunk in files.chunks}
            found.append(own)
        return found

    def _split(
        self, store: Store, tables: Sequence[ChunkedTable], paths: Sequence[Mapping[int, str]], rows: Sequence[int]
    ) -> None:
        """Writes finished tables from the files in which their chunks are, chunk by chunk."""

        def read_files(chunk: int) -> dict[str, pa.Table]:
            return {path: read_whole(store, path, rows[chunk]) for path in {own[chunk] for own in paths}}

        writers: list[Callable[[pa.Table], None]] = []
        chunks = range(len(rows) if tables else 0)
        with ExitStack() as stack:
            for chunk, read in zip(chunks, read_ahead(read_files, chunks, store.reads_ahead()), strict=True):
                parts = [self._part(read[own[chunk]], table) for table, own in zip(tables, paths, strict=True)]
                if not writers:
                    pairs = zip(tables, parts, strict=True)
                    writers = [stack.enter_context(table.writing(store, part.schema, rows)) for table, part in pairs]
                for write, part in zip(writers, parts, strict=True):
                    write(part)

    def _part(self, content: pa.Table, table: ChunkedTable) -> pa.Table:
        """The rows of one table, from a joint file or from one of its own."""
        start = f"{table.folder}/"
        own = {name: name.removeprefix(start) for name in content.column_names if name.startswith(start)}
        if not own:
            return content
        return content.select([*self.shared, *own]).rename_columns([*self.shared, *own.values()])


def _file(folder: str, start: str, chunk: int) -> str:
    return f"{folder}/{start}-chunk-{chunk:06d}.parquet"


def _read_held(store: Store, paths: Iterable[str]) -> Held:
    """What joint files whose names start alike hold, from the first that can be read; nothing if none can."""
    for path in paths:
        try:
            with store.open_input(path) as source:
                metadata = pq.ParquetFile(source).schema_arrow.metadata or {}
            held = json.loads(metadata[_KEY])
        except (OSError, KeyError, ValueError, pa.ArrowException):
            continue
        if isinstance(held, dict):
            return held
    return {}
