"""Recurring evaluations: each entry of a schedule is submitted once when it is due, and followed until it ends.

A scheduler keeps no state that matters in memory: the files of the history and the ids of the jobs say what was done.
So a scheduler that was killed can be started again and continues, and several schedulers on one schedule run nothing
twice.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from align_core.errors import InputError, reason_of
from pipelines.failure import RunFailed
from pipelines.report.page import read_report
from pipelines.schedule.changes import compare, rate_rows
from pipelines.schedule.cron import latest_minute, minute_key, minute_text, next_minute, parse_minute_key, utc_now
from pipelines.schedule.file import Entry, Schedule
from pipelines.schedule.history import History, Job, Run
from pipelines.schedule.jobs import JobServer, JobState, Refused, Status, Unreachable
from pipelines.schedule.to_mlflow import log_jobs
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Say

_LATE_START = timedelta(minutes=5)
"""A start this much after the planned minute is still on time: cron, Kubernetes and the start of a process need some
time. Later starts count as downtime, to which `catch_up` applies."""
_POLL_S = 2.0  # while a job runs or a cluster does not answer
_IDLE_S = 30.0  # the longest pause otherwise
_GRACE_S = 10.0
"""For this long after the end of a job, only the scheduler that submitted it records the end. Otherwise two schedulers
that follow the same job would both log it to MLflow."""
_MAX_FAILURES = 15
"""This many requests in a row may fail before `once` gives up on a cluster."""
_INPUT_ERROR = 2  # the exit code of `witness run` where the input is wrong, so that another attempt would fail as well


class Scheduler:
    """Submits the entries of a schedule as they are due, and follows their jobs.

    Args:
        schedule: the checked schedule.
        say: prints a message of one line.
        now: returns the current time.
        wait: sleeps for a number of seconds.
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
        self._submitted: set[str] = set()  # ids of the jobs that this scheduler submitted itself
        self._problems: dict[str, str] = {}  # entry -> why its last step failed

    def check(self, file: Path) -> None:
        """Raises InputError unless the history can be written and every job server answers.

        `file` is the schedule file, which the message names.
        """
        store = self.schedule.store
        try:
            store.check_writable()
        except InputError as problem:
            location = without_credentials(store.location)
            raise InputError(f"{file}: state: {location} is not writable; name another folder") from problem
        for entry in self.schedule.entries:
            try:
                self._servers[entry.address].check()
            except Unreachable as problem:
                raise InputError(f"{file}: entries.{entry.name}.address: {problem}") from problem

    def once(self) -> list[Run]:
        """Submits what is due now, waits for it to end, and returns the runs that have ended.

        It does not wait for a run of an earlier minute. Raises RunFailed where a cluster has not answered for long; the
        jobs that were submitted to it continue.
        """
        begun, ended = self._now(), list[Run]()
        awaited = {entry.name: entry for entry in self.schedule.entries}
        failures, given_up = Counter[str](), list[str]()
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
                    if failures[name] > _MAX_FAILURES:
                        given_up.append(f"{name}: {problem}")
                        del awaited[name]
            if awaited:
                self._wait(_POLL_S)
        if given_up:
            raise RunFailed(
                f"{'; '.join(given_up)}. The jobs that were submitted continue; run the same command again to follow "
                "them"
            )
        return ended

    def _is_awaited(self, entry: Entry, now: datetime) -> bool:
        """Whether the run of the minute that is due at `now` is still running, rather than one of an earlier minute."""
        last, due = self.history.latest(entry.name), latest_minute(entry.config.cron, now)
        return last is not None and last.is_running and last.minute == minute_key(due)

    def forever(self) -> Iterator[Run]:
        """Yields every run when it ends, and never returns.

        A cluster that does not answer, or a history that cannot be written, is reported once and tried again.
        """
        while True:
            for entry in self.schedule.entries:
                try:
                    while run := self.step(entry, self._now()):
                        yield run
                    self._problems.pop(entry.name, None)
                except (Unreachable, OSError) as problem:
                    if self._problems.get(entry.name) != str(problem):
                        self._say(f"{entry.name}: {problem}; trying again")
                    self._problems[entry.name] = str(problem)
            self._wait(self._pause())

    def _pause(self) -> float:
        """Seconds until the next step. It is never long, because clocks are adjusted and machines are suspended."""
        now, pause = self._now(), _IDLE_S
        for entry in self.schedule.entries:
            last, following = self.history.latest(entry.name), next_minute(entry.config.cron, now)
            if entry.name in self._problems or (last is not None and last.is_running):
                return _POLL_S
            pause = min(pause, (following - now).total_seconds() + 0.1)
        return pause

    def step(self, entry: Entry, now: datetime) -> Run | None:
        """Does what can be done for an entry now, without waiting, and returns the run that has ended by it, if any.

        Raises Unreachable, or OSError where the history cannot be written. A run is written to the history before its
        job is submitted, so a scheduler that is killed in between finds it there.
        """
        due, run = latest_minute(entry.config.cron, now), self.history.latest(entry.name)
        if run is not None and run.is_running:
            return self._follow(entry, run, due, now)
        if run is not None and due <= parse_minute_key(run.covered):
            return None
        is_late = now - due > _LATE_START
        if run is None and is_late:
            # The entry is new, so the minutes before this one were not missed.
            self.history.save(Run(entry.name, minute_key(due), minute_key(due), "waiting"))
            self._say(f"{entry.name}: first due at {minute_text(next_minute(entry.config.cron, now))}")
            return None
        if is_late and not entry.config.catch_up:
            self.history.save(Run(entry.name, minute_key(due), minute_key(due), "missed"))
            self._say(f"{entry.name}: {minute_text(due)} was missed, and catch_up is off")
            return None
        return self._begin(entry, due, run)

    def _begin(self, entry: Entry, due: datetime, last: Run | None) -> Run | None:
        self._servers[entry.address].check()
        missed = due if last is None else next_minute(entry.config.cron, parse_minute_key(last.covered))
        if missed < due:
            self._say(
                f"{entry.name}: the minutes since {minute_text(missed)} were missed; one run, for {minute_text(due)}, "
                "makes up for them"
            )
        return self._submit(entry, Run(entry.name, minute_key(due), minute_key(due)))

    def _submit(self, entry: Entry, run: Run) -> Run | None:
        """Submits the run's next job, or submits its planned job again, which the cluster may or may not know."""
        if not run.jobs or run.jobs[-1].status != "planned":
            run.jobs.append(Job(f"{entry.schedule}-{entry.name}-{run.minute}-{len(run.jobs) + 1}"))
            self.history.save(run)
        job, server = run.jobs[-1], self._servers[entry.address]
        labels = {"witness.schedule": entry.schedule, "witness.entry": entry.name}
        try:
            is_new = server.submit(job.id, entry.entrypoint, entry.working_dir, entry.excludes, labels)
        except Refused as problem:
            return self._finish_job(entry, run, "failed", f"the cluster rejected the job: {problem}")
        if not is_new:
            state = server.state(job.id)
            if state is not None and {**state.labels, **labels} != dict(state.labels):
                taken = "its id is taken by a job of another schedule; give this schedule another name"
                return self._finish_job(entry, run, "failed", taken, is_final=True)
        self._submitted |= {job.id} if is_new else set()
        job.status = "running"
        self.history.save(run)
        how = "submitted as" if is_new else "was submitted before; following"
        self._say(f"{entry.name}: {minute_text(parse_minute_key(run.minute))} {how} {job.id}")
        return None

    def _follow(self, entry: Entry, run: Run, due: datetime, now: datetime) -> Run | None:
        """A step for a run whose job had not ended when the history was last written."""
        job = run.jobs[-1]
        state = self._servers[entry.address].state(job.id)
        is_next_due = due > parse_minute_key(run.covered)
        if job.status == "planned" and state is None and is_next_due:
            run.status = "missed"  # its job was never submitted, and a later minute is due by now
            self.history.save(run)
            return self.step(entry, now)
        if job.status == "planned":
            return self._submit(entry, run)
        if state is None:
            return self._finish_job(
                entry, run, "failed", "the cluster does not know the job any more; it may have been restarted"
            )  # fmt: skip
        if state.status != "running":
            if job.id not in self._submitted and time.time() - (state.ended or 0) < _GRACE_S:
                return None
            job.began, job.ended = state.began, state.ended
            reason = "" if state.status == "succeeded" else self._reason(entry, job, state)
            is_final = state.status != "failed" or state.exit_code == _INPUT_ERROR
            return self._finish_job(entry, run, state.status, reason, is_final)
        if is_next_due:
            run.covered = minute_key(due)
            self.history.save(run)
            self._say(f"{entry.name}: {minute_text(due)} is skipped, because {job.id} is still running")
        return None

    def _reason(self, entry: Entry, job: Job, state: JobState) -> str:
        """What the job printed last, which for `witness run` is its error message; otherwise what Ray says of it."""
        printed = self._servers[entry.address].last_line(job.id)
        return printed or reason_of(state.message) or state.status

    def _finish_job(self, entry: Entry, run: Run, status: Status, reason: str, is_final: bool = False) -> Run | None:
        """Records the end of a job. Then submits the next attempt (unless `is_final`), or ends and returns the run."""
        job = run.jobs[-1]
        job.status, job.reason = status, reason
        job.began, job.ended = job.began or time.time(), job.ended or time.time()
        if status == "failed" and not is_final and len(run.jobs) <= entry.config.retries:
            self._say(f"{entry.name}: {job.id} failed: {reason}; trying again")
            return self._submit(entry, run)
        run.status = status
        if status == "succeeded":
            self._read_table(entry, run)
        self.history.save(run)
        self._log(entry)
        if run.table is not None:
            self.history.delete_old(run)
        return run

    def _read_table(self, entry: Entry, run: Run) -> None:
        """Adds to a run the table that its job has made, and the changes since the last table before it."""
        try:
            run.table = rate_rows(read_report(entry.results).transfer)
        except (OSError, ValueError, KeyError) as problem:
            location = without_credentials(entry.results.location)
            self._say(
                f"warning: {entry.name}: the report in {location} is unreadable ({problem}); `output` must be a "
                "location that both the cluster and this machine can reach"
            )
            return
        before = self.history.table_before(entry.name, run.minute)
        run.changes = None if before is None else compare(before, run.table)

    def _log(self, entry: Entry) -> None:
        """Logs to MLflow the jobs that have ended, and earlier ones that could not be logged at their time."""
        unlogged: list[tuple[Run, Job]] = []
        for run in self.history.runs(entry.name):
            jobs = [job for job in run.jobs if job.ended is not None and not job.logged]
            if run.has_job and not run.is_running and not jobs:
                break
            unlogged = [(run, job) for job in jobs] + unlogged
        if log_jobs(entry, unlogged, self._say):
            for run, job in unlogged:
                job.logged = True
                self.history.save(run)
