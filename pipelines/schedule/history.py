"""What a schedule remembers: one JSON file per entry and planned minute, from which any scheduler can continue."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pipelines.schedule.changes import Changes, RateRow
from pipelines.storage.sealed import read_sealed, write_sealed
from pipelines.storage.store import Store

Status = Literal["waiting", "missed", "running", "succeeded", "failed", "stopped"]
_MINUTE_FILE = re.compile(r"\d{4}-\d\d-\d\dT\d{4}Z\.json")
_RUNS_KEPT = 500  # of one entry; at one run a night, that is more than a year


@dataclass
class Job:
    """One attempt to run an entry, as a job on the cluster.

    Attributes:
        id: the submission id, which a cluster accepts only once.
        status: `planned` until the submission is confirmed, so the cluster may or may not know a planned job.
        reason: why the job did not succeed; empty otherwise.
        began, ended: Unix time in seconds.
        logged: whether MLflow has a run for this job.
    """

    id: str
    status: Literal["planned", "running", "succeeded", "failed", "stopped"] = "planned"
    reason: str = ""
    began: float | None = None
    ended: float | None = None
    logged: bool = False


@dataclass
class Run:
    """An entry at one planned minute. The names of these fields are the keys of the file.

    Attributes:
        entry: the name of the entry.
        minute: the planned minute, as `cron.minute_key` writes it.
        covered: the last planned minute that this run stands for. It is later than `minute` where minutes were skipped
            because the job was still running.
        status: `waiting` marks the minute at which a schedule first saw the entry, and `missed` a minute that was not
            run; neither has a job that ran. The others are the states of the last job.
        jobs: the attempts, the first one first.
        table: the rates of transfer.csv after the run; None where the run left no table.
        changes: the differences from the last table before it; None where there is none.
    """

    entry: str
    minute: str
    covered: str
    status: Status = "running"
    jobs: list[Job] = field(default_factory=list)
    table: list[RateRow] | None = None
    changes: Changes | None = None

    @property
    def is_running(self) -> bool:
        """Whether its last job has not ended yet, as far as the history knows."""
        return self.status == "running"

    @property
    def has_job(self) -> bool:
        """Whether a job was submitted, or is about to be, for this minute."""
        return self.status not in ("waiting", "missed")

    def as_json(self) -> dict[str, Any]:
        """The run as an object of `--json`, without the table."""
        changes = None if self.changes is None else self.changes.as_json()
        jobs = [{"id": job.id, "status": job.status, "reason": job.reason} for job in self.jobs]
        return {"entry": self.entry, "minute": self.minute, "status": self.status, "jobs": jobs, "changes": changes}


class History:
    """The runs of a schedule in its store.

    A run is always written as a whole. Where two schedulers write the same run, the later write counts.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def runs(self, entry: str) -> Iterator[Run]:
        """The runs of an entry, the latest first.

        A file that is damaged, or that was edited, is skipped, as if the minute had never been run. That is safe,
        because a job that was submitted for that minute is found again on the cluster under its id.
        """
        for minute in self._minutes(entry):
            run = self._read(entry, minute)
            if run is not None:
                yield run

    def latest(self, entry: str) -> Run | None:
        """The run of an entry with the latest planned minute; None where there is no run."""
        return next(self.runs(entry), None)

    def table_before(self, entry: str, minute: str) -> list[RateRow] | None:
        """The table of the last run before `minute` that left one; None where no run did."""
        tables = (run.table for run in self.runs(entry) if run.minute < minute)
        return next((table for table in tables if table is not None), None)

    def save(self, run: Run) -> None:
        """Writes a run, replacing what was stored for its minute. Raises OSError."""
        write_sealed(self._store, self._path(run.entry, run.minute), asdict(run))

    def delete_old(self, run: Run) -> None:
        """Deletes all but the latest runs of the entry of `run`.

        It is called after a run that left a table, so that at least one table remains for the next run to be compared
        with.
        """
        for minute in self._minutes(run.entry)[_RUNS_KEPT:]:
            if minute < run.minute:
                self._store.delete(self._path(run.entry, minute))

    def _minutes(self, entry: str) -> list[str]:
        names = self._store.listing(entry).get(entry, [])
        return sorted((name.removesuffix(".json") for name in names if _MINUTE_FILE.fullmatch(name)), reverse=True)

    def _read(self, entry: str, minute: str) -> Run | None:
        content = read_sealed(self._store, self._path(entry, minute))
        if content is None:
            return None
        try:
            content["jobs"] = [Job(**job) for job in content["jobs"]]
            content["changes"] = content["changes"] and Changes(**content["changes"])
            run = Run(**content)
            is_whole = (run.entry, run.minute) == (entry, minute) and run.status in get_args(Status)
            return run if is_whole and isinstance(run.covered, str) and isinstance(run.table, list | None) else None
        except (KeyError, TypeError):
            return None

    @staticmethod
    def _path(entry: str, minute: str) -> str:
        return f"{entry}/{minute}.json"
