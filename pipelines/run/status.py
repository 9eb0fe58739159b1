"""Says how far an experiment is: the state of every network and table, from the settings and one listing of the store.

Nothing here imports torch, Ray or MLflow, so that the answer comes within a second or two, on any machine.
"""

import time
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from pipelines.experiment.surrogates import series_of
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.done_chunks import done_chunks
from pipelines.stages.effects import without_effect
from pipelines.stages.measurings import SOFT
from pipelines.stages.notes import not_there
from pipelines.storage.chunked_table import ChunkedTable

_NO_SURROGATES = ("clean images", "corrupted images", SOFT)

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
        """The stage, and the surrogate (with all its seeds) or model, under which the entry is counted."""
        kind, _, rest = self.folder.partition("/")
        if kind in ("clean", "corrupted"):
            return "evaluate", f"{kind} images"
        stages = {"trained": "train", "models": "align", "adversarial": "craft", "outcomes": "evaluate"}
        return stages.get(kind, kind), series_of(rest.partition("/")[0])


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
    """The state of a whole experiment at one time (`at`, in seconds of a monotonic clock).

    `failures` says why by the folder of each network and table that failed, but for tables whose images failed.
    `warnings` are of what cannot be made, and of surrogates whose alignment did not work.
    """

    entries: list[Entry]
    at: float = field(default_factory=time.monotonic)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

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
        order = {stage: position for position, stage in enumerate(("train", "align", "craft", "evaluate", "reasons"))}
        return [
            Group(stage, name, Counter(e.state for e in own), sum(e.done for e in own), sum(e.chunks for e in own))
            for (stage, name), own in sorted(members.items(), key=lambda item: order[item[0][0]])
        ]

    def summed_groups(self) -> list[Group]:
        """The groups; in place of all surrogates or models of a stage, where they are in the same state, their sum."""
        found: list[Group] = []
        for stage, of_stage in groupby(self.groups(), key=lambda group: group.stage):
            own = list(of_stage)
            named = [group for group in own if group.name not in _NO_SURROGATES]
            states = sum((group.states for group in named), Counter[State]())
            if len(named) > 1 and len(states) == 1:
                kind = "models" if stage == "train" else "surrogates"
                chunks = [sum(getattr(group, count) for group in named) for count in ("done", "chunks")]
                found += [group for group in own if group.name in _NO_SURROGATES]
                found.append(Group(stage, f"all {len(named)} {kind}", states, *chunks))
            else:
                found += own
        return found

    def sums(self) -> str:
        """The number of entries in each state and of finished chunks, in one line."""
        counts = Counter(entry.state for entry in self.entries)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return f"{states}; {self.done:,} of {self.chunks:,} chunks"

    def failed(self) -> list[str]:
        """A line per failure, with its reason, and one that counts these and all that cannot be made for them."""
        count = sum(entry.state == "failed" for entry in self.entries)
        if not count:
            return []
        is_are = "network or table has" if count == 1 else "networks and tables have"
        end = f"{count} {is_are} failed; `witness run` tries again what may still be made"
        return [*(f"{folder}: {why}" for folder, why in self.failures.items()), end]

    def lines(self) -> list[str]:
        """A line per entry, then the totals and the warnings."""
        return [*(entry.line() for entry in self.entries), f"in all: {self.sums()}", *self.warnings]

    def since(self, first: "Status") -> str:
        """The totals, with the rate since an earlier status and the time that remains at this rate."""
        made, seconds = self.done - first.done, self.at - first.at
        if made <= 0 or self.is_done:
            return self.sums()
        return f"{self.sums()}; {made / seconds:.1f}/s, {(self.chunks - self.done) * seconds / made:.0f} s left"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        entries = [vars(entry) for entry in self.entries]
        return {"done": self.done, "chunks": self.chunks, "entries": entries, "warnings": self.warnings}


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
    names = {folder: folder.partition("/")[2] for folder in folders}
    networks = [Entry(folder, _state_of(name, blueprint, absent)) for folder, name in names.items()]
    failures = {folder: blueprint.lost[name] for folder, name in names.items() if name in blueprint.lost}
    listing, adversarial = blueprint.store.listing(), blueprint.all_adversarial()
    clean = [own.table for own in (*blueprint.clean().values(), *blueprint.corrupted().values())]
    reasons = blueprint.reasons()
    tables = [*clean, *adversarial.values(), *(cell.table for cell in blueprint.cells()), *reasons.values()]
    unfinished = [table for table in tables if not table.is_finished(listing)]
    failures |= {own.folder: why for own in unfinished if (why := own.failure(blueprint.store, listing))}
    cells = [cell for cell in blueprint.cells() if adversarial[cell.surrogate, cell.attack].folder in failures]
    waiting = {cell.table.folder for cell in cells}  # for images that could not be crafted
    waiting |= {
        own.table.folder
        for one in blueprint.measurings
        if one.attacked is not None and one.attacked.folder in failures
        for own in one.measured
    }
    there = done_chunks(blueprint, listing)
    chunks = {table.folder: len(blueprint.chunks) for table in tables}
    chunks |= {table.folder: len(blueprint.sample.chunks) for table in reasons.values()}
    failed = failures.keys() | waiting
    left = {own.folder: _left(own, len(there[own.folder]), chunks[own.folder], failed) for own in unfinished}
    entries = [left.get(folder) or Entry(folder, "done", count, count) for folder, count in chunks.items()]
    warnings = [*not_there(blueprint), *without_effect(blueprint)]
    return Status([*networks, *entries], failures=failures, warnings=warnings)


def _state_of(network: str, blueprint: Blueprint, absent: Sequence[str]) -> State:
    if network in blueprint.lost:
        return "failed"
    return "missing" if network in absent else "done"


def _left(table: ChunkedTable, done: int, chunks: int, failed: Container[str]) -> Entry:
    """The entry of a table that is not finished."""
    return Entry(table.folder, "failed" if table.folder in failed else "partial" if done else "missing", done, chunks)
