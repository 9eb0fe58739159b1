"""A schedule for people: when each entry comes next, how it went last, and a run that has ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.schedule.cron import next_minute, read_minute, written_minute
from pipelines.schedule.file import Entry, Schedule
from pipelines.schedule.history import History, Run


def shown(minute: datetime) -> str:
    """A planned minute."""
    return f"{minute:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Outlook:
    """Of one entry: the next planned minute, and its last run."""

    entry: Entry
    following: datetime
    last: Run | None

    def line(self) -> str:
        """For people."""
        following = shown(self.following)
        if self.last is None:
            return f"{self.entry.name}: next {following}; no run yet"
        job = self.last.jobs[-1]
        said = f" ({job.reason})" if job.reason else ""
        last = f"{shown(read_minute(self.last.minute))}: {self.last.status}{said}, {job.id}"
        return f"{self.entry.name}: next {following}; last {last}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "entry": self.entry.name,
            "cron": self.entry.config.cron,
            "next": written_minute(self.following),
            "last": None if self.last is None else self.last.as_json(),
        }


def outlook(schedule: Schedule, now: datetime) -> list[Outlook]:
    """Of every entry; asks no cluster and writes nothing."""
    history = History(schedule.store)
    return [
        Outlook(
            entry,
            next_minute(entry.config.cron, now),
            next((run for run in history.runs(entry.name) if run.has_run), None),
        )
        for entry in schedule.entries
    ]


def lines_of(run: Run) -> Sequence[str]:
    """A run that has ended, for people."""
    job = run.jobs[-1]
    said = f": {job.reason}" if job.reason else ""
    head = f"{run.entry}: {shown(read_minute(run.minute))} {run.status} as {job.id}{said}"
    if run.changes is not None:
        return [head, *(f"  {line}" for line in run.changes.lines())]
    return [head, "  the first table of this entry: nothing to compare it with"] if run.table is not None else [head]
