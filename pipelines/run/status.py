"""Says how far an experiment is: the state of every network and table, from the settings and one listing of the store.

Nothing here imports torch, Ray or MLflow, so that the answer comes within a second or two, on any machine.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.chunked_table import ChunkedTable

State = Literal["missing", "partial", "done", "failed"]


@dataclass(frozen=True)
class Entry:
    """A network or a table: its folder, its state, and how many of its chunks are finished (0 of 0 for a network)."""

    folder: str
    state: State
    done: int = 0
    chunks: int = 0

    def line(self) -> str:
        """The line that `--cells` prints."""
        chunks = f"  {self.done} of {self.chunks} chunks" if self.state == "partial" else ""
        return f"{self.state:8} {self.folder}{chunks}"

    @property
    def group(self) -> tuple[str, str]:
        """The stage, and the surrogate or model, under which the entry is counted."""
        kind, _, rest = self.folder.partition("/")
        stages = {"trained": "train", "models": "align", "adversarial": "craft", "outcomes": "evaluate"}
        if kind == "clean":
            return "evaluate", "clean images"
        return stages[kind], rest.partition("/")[0]


@dataclass(frozen=True)
class Group:
    """What one stage makes for one surrogate or model: the number of entries in each state, and of finished chunks."""

    stage: str
    name: str
    states: Counter[State]
    done: int
    chunks: int

    @property
    def state(self) -> str:
        """The state that all entries share, or else the number of entries in each state."""
        if len(self.states) == 1:
            return str(next(iter(self.states)))
        return ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))


@dataclass(frozen=True)
class Status:
    """The state of a whole experiment at one time (`at`, in seconds of a monotonic clock)."""

    entries: list[Entry]
    at: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        """Whether every network and table is finished."""
        return all(entry.state == "done" for entry in self.entries)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for: every network and table is finished or has failed."""
        return all(entry.state in ("done", "failed") for entry in self.entries)

    @property
    def done(self) -> int:
        """Number of chunks that are finished, over all tables."""
        return sum(entry.done for entry in self.entries)

    @property
    def chunks(self) -> int:
        """Number of chunks, finished or not."""
        return sum(entry.chunks for entry in self.entries)

    def groups(self) -> list[Group]:
        """The entries, counted by stage and surrogate."""
        members: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            members.setdefault(entry.group, []).append(entry)
        order = {stage: position for position, stage in enumerate(("train", "align", "craft", "evaluate"))}
        return [
            Group(stage, name, Counter(e.state for e in own), sum(e.done for e in own), sum(e.chunks for e in own))
            for (stage, name), own in sorted(members.items(), key=lambda item: order[item[0][0]])
        ]

    def sums(self) -> str:
        """The number of entries in each state and of finished chunks, in one line."""
        counts = Counter(entry.state for entry in self.entries)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return f"{states}; {self.done:,} of {self.chunks:,} chunks"

    def lines(self) -> list[str]:
        """A line per entry, then the totals."""
        return [*(entry.line() for entry in self.entries), f"in all: {self.sums()}"]

    def since(self, first: "Status") -> str:
        """The totals, with the rate since an earlier status and the time that remains at this rate."""
        made, seconds = self.done - first.done, self.at - first.at
        if made <= 0 or self.is_done:
            return self.sums()
        return f"{self.sums()}; {made / seconds:.1f}/s, {(self.chunks - self.done) * seconds / made:.0f} s left"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {"done": self.done, "chunks": self.chunks, "entries": [vars(entry) for entry in self.entries]}


def watch(request: Request, every: float = 2.0) -> Iterator[Status]:
    """Yields the status every `every` seconds while another process works, until all is done or failed.

    Raises InputError.
    """
    blueprint = open_blueprint(request)
    while not (status := _status(blueprint)).is_over:
        yield status
        time.sleep(every)
        blueprint.refresh()
    yield status


def status_of(request: Request) -> Status:
    """Returns the state of every network and table; writes nothing. Raises InputError."""
    return _status(open_blueprint(request))


def _status(blueprint: Blueprint) -> Status:
    absent = blueprint.missing("align")
    folders = [f"trained/{name}" for name in blueprint.trained_for_run]
    folders += [f"models/{surrogate.name}" for surrogate in blueprint.planned if surrogate.align]
    networks = [Entry(folder, _state_of(folder.partition("/")[2], blueprint, absent)) for folder in folders]
    clean = [own.table for own in blueprint.clean().values()]
    tables = [*clean, *blueprint.all_adversarial().values(), *(cell.table for cell in blueprint.cells())]
    return Status([*networks, *_entries(blueprint, tables)])


def _state_of(network: str, blueprint: Blueprint, absent: Sequence[str]) -> State:
    if network in blueprint.lost:
        return "failed"
    return "missing" if network in absent else "done"


def _entries(blueprint: Blueprint, tables: Sequence[ChunkedTable]) -> Iterator[Entry]:
    listing, chunks = blueprint.store.listing(), len(blueprint.chunks)
    there = blueprint.done_chunks(listing)
    for table in tables:
        if table.is_finished(listing):
            yield Entry(table.folder, "done", chunks, chunks)
            continue
        done = len(there[table.folder])
        state: State = "partial" if done else "missing"
        yield Entry(table.folder, "failed" if table.failure(blueprint.store, listing) else state, done, chunks)
