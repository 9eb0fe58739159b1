"""Recurring evaluations: every entry of a schedule submitted when it is due, once, and followed to its end.

Nothing is kept in memory that matters: the files of the history and the ids of jobs say what was done. A scheduler that
was killed goes on where it was, and two of them do no harm.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from align_core.errors import InputError
from pipelines.failure import RunFailed
from pipelines.report.page import read_report
from pipelines.schedule.changes import changes, kept
from pipelines.schedule.cron import latest_minute, next_minute, read_minute, utc_now, written_minute
from pipelines.schedule.file import Entry, Schedule
from pipelines.schedule.history import History, Job, Run
from pipelines.schedule.jobs import JobServer, JobState, Refused, Status, Unreachable
from pipelines.schedule.outlook import shown
from pipelines.schedule.to_mlflow import log_jobs
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Say

_ON_TIME = timedelta(minutes=5)
"""So late a minute may still be called on time: cron, Kubernetes and the start of a process need some."""
_POLL_S, _IDLE_S = 2.0, 30.0
_LEAVE_S = 10.0
"""So long the end of a job is left to the scheduler that submitted it: two would log it twice."""
_PATIENCE = 15
"""How often in a row `once` finds the cluster gone before it gives up."""
_INPUT_WRONG = 2  # the exit code of `witness run` that no second attempt can change


class Scheduler:
    """Works on a schedule.

    Args:
        schedule: checked.
        say: where events are told, a line each.
        now: the present.
        wait: waits for seconds.
    """

    def __init__(
        self,
        schedule: Schedule,
        say: Say,
        now: Callable[[], datetime] = utc_now,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.schedule, self.history = schedule, History(schedule.store)
        self._say, self._now, self._wait = say, now, wait
        self._servers = {entry.address: JobServer(entry.address) for entry in schedule.entries}
        self._submitted: set[str] = set()
        self._troubles: dict[str, str] = {}

    def check(self, file: Path) -> None:
        """Raises InputError unless runs can be remembered and every job server answers. `file`: for the message."""
        store = self.schedule.store
        try:
            store.check_writable()
        except InputError as problem:
            where = without_credentials(store.location)
            raise InputError(f"{file}: state: nothing can be written to {where}; name another folder") from problem
        for entry in self.schedule.entries:
            try:
                self._servers[entry.address].check()
            except Unreachable as problem:
                raise InputError(f"{file}: entries.{entry.name}.address: {problem}") from problem

    def once(self) -> list[Run]:
        """Submits what is due, waits for it, and returns the runs that ended. What another started is not waited for.

        Raises RunFailed where the cluster is gone for long; what was submitted goes on.
        """
        begun, ended = self._now(), list[Run]()
        awaited = {entry.name: entry for entry in self.schedule.entries}
        failures, gone = Counter[str](), list[str]()
        while awaited:
            for name, entry in list(awaited.items()):
                try:
                    while run := self.step(entry, begun):
                        ended.append(run)
                    failures[name] = 0
                    if not self._is_awaited(entry, begun):
                        del awaited[name]
                except Unreachable as problem:
                    failures[name] += 1
                    if failures[name] > _PATIENCE:
                        gone.append(f"{name}: {problem}")
                        del awaited[name]
            if awaited:
                self._wait(_POLL_S)
        if gone:
            raise RunFailed(f"{'; '.join(gone)}. What was submitted goes on; the same command follows it")
        return ended

    def _is_awaited(self, entry: Entry, now: datetime) -> bool:
        """Whether the minute that is due is under way, not an earlier one."""
        last, due = self.history.latest(entry.name), latest_minute(entry.config.cron, now)
        return last is not None and last.is_open and last.minute == written_minute(due)

    def forever(self) -> Iterator[Run]:
        """Every run that ends, as it ends. A cluster that does not answer is told, and asked again."""
        while True:
            for entry in self.schedule.entries:
                try:
                    while run := self.step(entry, self._now()):
                        yield run
                    self._troubles.pop(entry.name, None)
                except (Unreachable, OSError) as problem:
                    if self._troubles.get(entry.name) != str(problem):
                        self._say(f"{entry.name}: {problem}; tried again")
                    self._troubles[entry.name] = str(problem)
            self._wait(self._pause())

    def _pause(self) -> float:
        """Seconds until there may be something to do: clocks jump and machines sleep, so never long."""
        now, pause = self._now(), _IDLE_S
        for entry in self.schedule.entries:
            last, following = self.history.latest(entry.name), next_minute(entry.config.cron, now)
            if entry.name in self._troubles or (last is not None and last.is_open):
                return _POLL_S
            pause = min(pause, (following - now).total_seconds() + 0.1)
        return pause

    def step(self, entry: Entry, now: datetime) -> Run | None:
        """Does for an entry what can be done now; returns the run that has ended by it.

        Raises Unreachable, or OSError where the history cannot be written. Nothing is submitted that is not written.
        """
        due, run = latest_minute(entry.config.cron, now), self.history.latest(entry.name)
        if run is not None and run.is_open:
            return self._follow(entry, run, due, now)
        if run is not None and due <= read_minute(run.covered):
            return None
        is_late = now - due > _ON_TIME
        if run is None and is_late:
            # Where an entry is met for the first time, what is missed counts from here.
            self.history.save(Run(entry.name, written_minute(due), written_minute(due), "waiting"))
            self._say(f"{entry.name}: waits for {shown(next_minute(entry.config.cron, now))}")
            return None
        if is_late and not entry.config.catch_up:
            self.history.save(Run(entry.name, written_minute(due), written_minute(due), "missed"))
            self._say(f"{entry.name}: {shown(due)} was missed, and is not caught up")
            return None
        return self._begin(entry, due, run)

    def _begin(self, entry: Entry, due: datetime, last: Run | None) -> Run | None:
        self._servers[entry.address].check()
        missed = due if last is None else next_minute(entry.config.cron, read_minute(last.covered))
        if missed < due:
            self._say(f"{entry.name}: missed since {shown(missed)}; the one run of {shown(due)} catches up")
        minute = written_minute(due)
        return self._submit(entry, Run(entry.name, minute, minute))

    def _submit(self, entry: Entry, run: Run) -> Run | None:
        """Submits the run's next job, or the one that may be on its way. It is written before it is sent."""
        if not run.jobs or run.jobs[-1].status != "planned":
            run.jobs.append(Job(f"{entry.schedule}-{entry.name}-{run.minute}-{len(run.jobs) + 1}"))
            self.history.save(run)
        job, server = run.jobs[-1], self._servers[entry.address]
        labels = {"witness.schedule": entry.schedule, "witness.entry": entry.name}
        try:
            is_new = server.submit(job.id, entry.entrypoint, entry.working_dir, entry.left_out, labels)
        except Refused as problem:
            return self._over(entry, run, "failed", f"not taken by the cluster: {problem}")
        if not is_new:
            state = server.state(job.id)
            if state is not None and {**state.labels, **labels} != dict(state.labels):
                taken = "its id is taken by a job of another schedule; give this one another name"
                return self._over(entry, run, "failed", taken, is_final=True)
        self._submitted |= {job.id} if is_new else set()
        job.status = "running"
        self.history.save(run)
        how = "submitted as" if is_new else "was submitted already and is followed:"
        self._say(f"{entry.name}: {shown(read_minute(run.minute))} {how} {job.id}")
        return None

    def _follow(self, entry: Entry, run: Run, due: datetime, now: datetime) -> Run | None:
        """A run whose job has not ended when it was last looked at."""
        job = run.jobs[-1]
        state = self._servers[entry.address].state(job.id)
        is_new_due = due > read_minute(run.covered)
        if state is None and job.status == "planned":
            if not is_new_due:
                return self._submit(entry, run)
            run.status = "missed"  # it never came to be, and there is a later one
            self.history.save(run)
            return self.step(entry, now)
        if state is None:
            return self._over(entry, run, "failed", "the cluster knows it no longer: was it started anew?")
        if job.status == "planned":
            return self._submit(entry, run)
        if state.status != "running":
            if job.id not in self._submitted and time.time() - (state.ended or 0) < _LEAVE_S:
                return None  # whoever submitted it is at it, unless that one was killed
            job.began, job.ended = state.began, state.ended
            reason = "" if state.status == "succeeded" else self._reason(entry, job, state)
            is_final = state.status != "failed" or state.exit_code == _INPUT_WRONG
            return self._over(entry, run, state.status, reason, is_final)
        if is_new_due:
            run.covered = written_minute(due)
            self.history.save(run)
            self._say(f"{entry.name}: {shown(due)} is skipped: {job.id} is still running")
        return None

    def _reason(self, entry: Entry, job: Job, state: JobState) -> str:
        words = self._servers[entry.address].last_words(job.id)
        return words or (state.message.splitlines() or [state.status])[0]

    def _over(self, entry: Entry, run: Run, status: Status, reason: str, is_final: bool = False) -> Run | None:
        """A job has ended: the next attempt, or the end of the run."""
        job = run.jobs[-1]
        job.status, job.reason = status, reason
        job.began, job.ended = job.began or time.time(), job.ended or time.time()
        if status == "failed" and not is_final and len(run.jobs) <= entry.config.retries:
            self._say(f"{entry.name}: {job.id} failed: {reason}; tried again")
            return self._submit(entry, run)
        run.status = status
        if status == "succeeded":
            self._compare(entry, run)
        self.history.save(run)
        self._log(entry)
        if run.table is not None:
            self.history.forget_old(run)
        return run

    def _compare(self, entry: Entry, run: Run) -> None:
        try:
            run.table = kept(read_report(entry.results).transfer)
        except (OSError, ValueError, KeyError) as problem:
            where = without_credentials(entry.results.location)
            self._say(
                f"warning: {entry.name}: no report could be read in {where} ({problem}); `output` must be a place that "
                "the cluster and this machine both reach"
            )
            return
        before = self.history.table_before(entry.name, run.minute)
        run.changes = None if before is None else changes(before, run.table)

    def _log(self, entry: Entry) -> None:
        """Tells MLflow of the jobs that have ended, and of earlier ones that it could not be told of."""
        untold: list[tuple[Run, Job]] = []
        for run in self.history.runs(entry.name):
            jobs = [job for job in run.jobs if job.ended is not None and not job.logged]
            if run.has_run and not run.is_open and not jobs:
                break
            untold = [(run, job) for job in jobs] + untold
        if log_jobs(entry, untold, self._say):
            for run, job in untold:
                job.logged = True
                self.history.save(run)
