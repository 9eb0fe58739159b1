"""What a schedule remembers: a file per entry and planned minute, so that whoever reads them can go on."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipelines.report.page import Row
from pipelines.schedule.changes import Changes
from pipelines.storage.store import Store

_KEPT = 500


@dataclass
class Job:
    """One attempt. A job that is `planned` may be on its way to the cluster, or not. began, ended: seconds."""

    id: str
    status: Literal["planned", "running", "succeeded", "failed", "stopped"] = "planned"
    reason: str = ""
    began: float | None = None
    ended: float | None = None
    logged: bool = False


@dataclass
class Run:
    """An entry at one planned minute.

    status: `waiting` is where an entry was seen first, without a run; `missed` was not run. covered: the last planned
    minute that it stands for, later than its own where minutes were skipped because it was still running.
    table: transfer.csv when it ended, changes: against the table of the run before; None where there is none.
    """

    entry: str
    minute: str
    covered: str
    status: Literal["waiting", "missed", "running", "succeeded", "failed", "stopped"] = "running"
    jobs: list[Job] = field(default_factory=list)
    table: list[Row] | None = None
    changes: Changes | None = None

    @property
    def is_open(self) -> bool:
        """Whether its job has still to end."""
        return self.status == "running"

    @property
    def has_run(self) -> bool:
        """Whether it ever had a job."""
        return self.status not in ("waiting", "missed")

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        changes = None if self.changes is None else self.changes.as_json()
        jobs = [{"id": job.id, "status": job.status, "reason": job.reason} for job in self.jobs]
        return {"entry": self.entry, "minute": self.minute, "status": self.status, "jobs": jobs, "changes": changes}


class History:
    """The runs of a schedule, in its store. Whoever writes a run writes the whole of it; the last one counts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def runs(self, entry: str) -> Iterator[Run]:
        """The runs of an entry, the latest first. A damaged file is as none: the cluster knows its job."""
        for minute in self._minutes(entry):
            run = self._read(entry, minute)
            if run is not None:
                yield run

    def latest(self, entry: str) -> Run | None:
        """The last run of an entry."""
        return next(self.runs(entry), None)

    def table_before(self, entry: str, minute: str) -> list[Row] | None:
        """The table of the last run before that minute that left one."""
        tables = (run.table for run in self.runs(entry) if run.minute < minute)
        return next((table for table in tables if table is not None), None)

    def save(self, run: Run) -> None:
        """Raises OSError."""
        self._store.write_json(self._place(run.entry, run.minute), asdict(run))

    def forget_old(self, run: Run) -> None:
        """Keeps the last runs of an entry; `run` left a table, so that what comes next has one to compare with."""
        for minute in self._minutes(run.entry)[_KEPT:]:
            if minute < run.minute:
                self._store.delete(self._place(run.entry, minute))

    def _minutes(self, entry: str) -> list[str]:
        names = self._store.listing(entry).get(entry, [])
        return sorted((name.removesuffix(".json") for name in names if name.endswith(".json")), reverse=True)

    def _read(self, entry: str, minute: str) -> Run | None:
        content = self._store.read_json(self._place(entry, minute))
        if content is None:
            return None
        try:
            content["jobs"] = [Job(**job) for job in content["jobs"]]
            content["changes"] = content["changes"] and Changes(**content["changes"])
            return Run(**content)
        except (KeyError, TypeError):
            return None

    @staticmethod
    def _place(entry: str, minute: str) -> str:
        return f"{entry}/{minute}.json"
