"""How far an experiment is: every network and cell, from the settings and one listing of the store."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipelines.run.command import Request, make_blueprint, missing_of
from pipelines.stages.blueprint import Blueprint, State
from pipelines.storage.chunked_table import ChunkedTable


@dataclass(frozen=True)
class Entry:
    """A network or a table: its folder, its state, and chunks done of all (none for a network)."""

    folder: str
    state: State
    done: int = 0
    chunks: int = 0

    def line(self) -> str:
        """For people."""
        chunks = f"  {self.done} of {self.chunks} chunks" if self.state == "partial" else ""
        return f"{self.state:8} {self.folder}{chunks}"


@dataclass(frozen=True)
class Status:
    """Of a whole experiment, at one time (in seconds)."""

    entries: list[Entry]
    at: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing."""
        return all(entry.state == "done" for entry in self.entries)

    @property
    def done(self) -> int:
        """Chunks that are there, of `chunks` in all."""
        return sum(entry.done for entry in self.entries)

    @property
    def chunks(self) -> int:
        """Chunks in all."""
        return sum(entry.chunks for entry in self.entries)

    def sums(self) -> str:
        """How many entries are in which state, and how many chunks are there."""
        counts = Counter(entry.state for entry in self.entries)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return f"{states}; {self.done:,} of {self.chunks:,} chunks"

    def lines(self) -> list[str]:
        """A line per entry, then the sums."""
        return [*(entry.line() for entry in self.entries), f"in all: {self.sums()}"]

    def since(self, first: "Status") -> str:
        """The sums, with the rate since an earlier look and the time that remains."""
        made, seconds = self.done - first.done, self.at - first.at
        if made <= 0 or self.is_done:
            return self.sums()
        return f"{self.sums()}; {made / seconds:.1f}/s, {(self.chunks - self.done) * seconds / made:.0f} s left"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"done": self.done, "chunks": self.chunks, "entries": [vars(entry) for entry in self.entries]}


def watch(request: Request, every: float = 2.0) -> Iterator[Status]:
    """The status again and again, as another process goes on, until all is done. Raises InputError."""
    blueprint = make_blueprint(request, to_write=False)
    while not (status := _status(blueprint)).is_done:
        yield status
        time.sleep(every)
        blueprint.refresh()
    yield status


def status_of(request: Request) -> Status:
    """The state of every network and cell; writes nothing. Raises InputError."""
    return _status(make_blueprint(request, to_write=False))


def _status(blueprint: Blueprint) -> Status:
    listing = blueprint.store.listing()
    chunks = len(blueprint.chunks)

    def entry(table: ChunkedTable) -> Entry:
        if table.is_finished(listing):
            return Entry(table.folder, "done", chunks, chunks)
        done = len(table.done_chunks(listing))
        if table.failure(blueprint.store, listing):
            return Entry(table.folder, "failed", done, chunks)
        return Entry(table.folder, "partial" if done else "missing", done, chunks)

    absent = missing_of(blueprint, "align")
    wanted = [f"trained/{name}" for name in blueprint.trained_for_run]
    wanted += [f"models/{surrogate.name}" for surrogate in blueprint.surrogates if surrogate.align]
    networks = [Entry(folder, "missing" if folder.partition("/")[2] in absent else "done") for folder in wanted]
    if absent:  # what depends on a network that is not there is not there either, under any fingerprint
        cells = [Entry(cell.table.folder, "missing", 0, chunks) for cell in blueprint.cells()]
        return Status([*networks, *cells])
    tables = [table for _, table in blueprint.clean().values()]
    tables += [
        blueprint.adversarial(surrogate, attack)
        for surrogate in blueprint.surrogates
        for attack in blueprint.experiment.attacks
    ]
    return Status([*networks, *map(entry, [*tables, *(cell.table for cell in blueprint.cells())])])
