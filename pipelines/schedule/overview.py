"""A schedule as people read it: the next minute and the last run of every entry, and a run that has ended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.schedule.cron import minute_key, minute_text, next_minute, parse_minute_key
from pipelines.schedule.file import Entry, Schedule
from pipelines.schedule.history import History, Run


@dataclass(frozen=True)
class EntryOverview:
    """One line of `witness schedule --list`.

    Attributes:
        entry: the entry that is described.
        next_minute: the planned minute at which it is due next.
        last_run: its last run that had a job, ended or not; None where there is none.
    """

    entry: Entry
    next_minute: datetime
    last_run: Run | None

    def line(self) -> str:
        """The overview as a line of text."""
        start = f"{self.entry.name}: next {minute_text(self.next_minute)}"
        if self.last_run is None:
            return f"{start}; no run yet"
        job = self.last_run.jobs[-1]
        reason = f" ({job.reason})" if job.reason else ""
        minute = minute_text(parse_minute_key(self.last_run.minute))
        return f"{start}; last {minute}: {self.last_run.status}{reason}, {job.id}"

    def as_json(self) -> dict[str, Any]:
        """The overview as an object of `--list --json`."""
        return {
            "entry": self.entry.name,
            "cron": self.entry.config.cron,
            "next": minute_key(self.next_minute),
            "last": None if self.last_run is None else self.last_run.as_json(),
        }


def overview_of(schedule: Schedule, now: datetime) -> list[EntryOverview]:
    """Describes every entry from the history alone: it contacts no cluster and writes nothing."""
    history = History(schedule.store)
    return [
        EntryOverview(
            entry,
            next_minute(entry.config.cron, now),
            next((run for run in history.runs(entry.name) if run.has_job), None),
        )
        for entry in schedule.entries
    ]


def describe_run(run: Run) -> list[str]:
    """A run that has ended as lines of text: how it ended, and what changed since the run before."""
    job = run.jobs[-1]
    reason = f": {job.reason}" if job.reason else ""
    head = f"{run.entry}: {minute_text(parse_minute_key(run.minute))} {run.status} as {job.id}{reason}"
    if run.changes is not None:
        return [head, *(f"  {line}" for line in run.changes.lines())]
    if run.table is not None:
        return [head, "  this is the first table of the entry, so there is nothing to compare it with"]
    return [head]
