"""How far an experiment is: every network and cell, from the settings and one listing of the store."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipelines.plan import State
from pipelines.run import Request, make_plan, missing_of
from pipelines.table import ChunkedTable


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
    """Of a whole experiment."""

    entries: list[Entry]

    def lines(self) -> list[str]:
        """A line per entry, then the sums."""
        counts = Counter(entry.state for entry in self.entries)
        sums = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return [*(entry.line() for entry in self.entries), f"in all: {sums}"]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"entries": [vars(entry) for entry in self.entries]}


def status_of(request: Request) -> Status:
    """The state of every network and cell; writes nothing. Raises InputError."""
    plan = make_plan(request, to_write=False)
    listing = plan.store.listing()
    chunks = len(plan.chunks)

    def entry(table: ChunkedTable) -> Entry:
        if table.is_finished(listing):
            return Entry(table.folder, "done", chunks, chunks)
        done = len(table.done_chunks(listing))
        if table.failure(plan.store, listing):
            return Entry(table.folder, "failed", done, chunks)
        return Entry(table.folder, "partial" if done else "missing", done, chunks)

    absent = missing_of(plan, "align")
    wanted = [f"trained/{name}" for name in plan.trained_for_run]
    wanted += [f"models/{surrogate.name}" for surrogate in plan.surrogates if surrogate.align]
    networks = [Entry(folder, "missing" if folder.partition("/")[2] in absent else "done") for folder in wanted]
    if absent:  # what depends on a network that is not there is not there either, under any fingerprint
        cells = [Entry(cell.table.folder, "missing", 0, chunks) for cell in plan.cells()]
        return Status([*networks, *cells])
    tables = [table for _, table in plan.clean().values()]
    tables += [
        plan.adversarial(surrogate, attack) for surrogate in plan.surrogates for attack in plan.experiment.attacks
    ]
    return Status([*networks, *map(entry, [*tables, *(cell.table for cell in plan.cells())])])
