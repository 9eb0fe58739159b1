"""A schedule on a real cluster, for tests: its jobs run a stand-in for `witness`, and the test sets the time.

The stand-in obeys files in the output folder: it waits while `hold` exists, ends with the first exit code in
`exits.txt`, and leaves `transfer.csv` as its report. It notes the id of every job that it ran in `ran.txt`.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from tiny_experiment import content

from pipelines.schedule.changes import RateRow
from pipelines.schedule.cron import minute_key
from pipelines.schedule.file import Entry, load_schedule
from pipelines.schedule.history import History, Job, Run
from pipelines.schedule.scheduler import Scheduler

STAND_IN = f"""#!{sys.executable}
import hashlib, json, os, sys, time
from pathlib import Path

output = Path(sys.argv[sys.argv.index("--output") + 1])
job = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"]
with open(output / "ran.txt", "a") as file:
    file.write(job + "\\n")
while (output / "hold").exists():
    time.sleep(0.1)
report = output / "tiny" / "report"
report.mkdir(parents=True, exist_ok=True)
hashes = {{}}
tables = ["transfer", "contrasts", "surrogates", "robustness", "seeds", "times"]
for table in (*tables, "reasons", "correlations", "soft_labels"):
    content = (output / "transfer.csv").read_bytes() if table == "transfer" else b""
    (report / f"{{table}}.csv").write_bytes(content)
    hashes[f"{{table}}.csv"] = hashlib.sha256(content).hexdigest()
(report / "report.json").write_text(json.dumps({{"files": hashes}}))
exits = (output / "exits.txt").read_text().split()
(output / "exits.txt").write_text(" ".join(exits[1:]))
print("witness: its last line")
sys.exit(int(exits[0]) if exits else 0)
"""
TABLE = "surrogate,attack,target,relation,n,rate,rate_low,rate_high\naligned,x,c,cross_family,90,30.0,20.0,40.0\n"
EARLIER_ROW: RateRow = {
    "surrogate": "aligned", "attack": "x", "target": "c", "n": 90, "rate": 30.0, "rate_low": 20.0, "rate_high": 40.0,
}  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2031-01-01T{text}").replace(tzinfo=UTC)


@dataclass
class SchedulerWithClock:
    """A scheduler for the first entry of a schedule file.

    `step` and the methods that call it take the time as an argument; `wrapped.once` and `wrapped.forever` read `now`.
    What the scheduler prints is collected in `messages`.
    """

    file: Path
    overrides: tuple[str, ...] = ()
    messages: list[str] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: at("12:00"))

    def __post_init__(self) -> None:
        self.schedule = load_schedule(self.file, self.overrides)
        self.wrapped = Scheduler(self.schedule, self.messages.append, lambda: self.now, lambda seconds: time.sleep(0.2))

    @property
    def entry(self) -> Entry:
        return self.schedule.entries[0]

    @property
    def history(self) -> History:
        return History(self.schedule.store)

    @property
    def latest(self) -> Run:
        run = self.history.latest(self.entry.name)
        assert run is not None
        return run

    def step(self, when: str) -> Run | None:
        return self.wrapped.step(self.entry, at(when))

    def step_until(self, when: str, is_so: Callable[[], bool]) -> None:
        """Steps until a condition holds; no run may end before it does."""
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, self.messages
            assert self.step(when) is None
            time.sleep(0.1)

    def record_run(self, when: str) -> None:
        """Writes a successful run of that minute to the history, without submitting a job."""
        minute = minute_key(at(when))
        job = Job("earlier", "succeeded", began=1.0, ended=2.0, logged=True)
        self.history.save(Run("all", minute, minute, "succeeded", [job], [EARLIER_ROW]))

    def run_to_end(self, when: str) -> Run:
        """Steps until a run has ended, and returns it."""
        end = time.monotonic() + 60
        while (run := self.step(when)) is None:
            assert time.monotonic() < end, self.messages
            time.sleep(0.1)
        return run


class ScheduleOnCluster:
    """A schedule in `folder` with one entry, `all`, which is due every minute."""

    def __init__(self, folder: Path, address: str, database: str) -> None:
        self.folder, self.output, self.name = folder, folder / "runs", folder.name.replace("_", "-")
        self.output.mkdir()
        (self.output / "transfer.csv").write_text(TABLE)
        self.set_exit_codes()
        (folder / "tiny.yaml").write_text(
            yaml.safe_dump(content() | {"output": str(self.output), "tracking": database})
        )
        self.content: dict[str, Any] = {
            "name": self.name,
            "address": address,
            "entries": {"all": {"cron": "* * * * *", "experiment": str(folder / "tiny.yaml")}},
        }
        self.client = MlflowClient(tracking_uri=database)

    def scheduler(self, *overrides: str) -> SchedulerWithClock:
        """A new scheduler, which shares nothing but files with those made before it."""
        file = self.folder / "schedule.yaml"
        file.write_text(yaml.safe_dump(self.content))
        return SchedulerWithClock(file, overrides)

    def set_exit_codes(self, *codes: int) -> None:
        """The exit codes of the next jobs; all jobs after them succeed."""
        (self.output / "exits.txt").write_text(" ".join(map(str, codes)))

    def hold_jobs(self) -> None:
        """Lets jobs start but not end, until `release_jobs` is called."""
        (self.output / "hold").touch()

    def release_jobs(self) -> None:
        (self.output / "hold").unlink()

    @property
    def started_jobs(self) -> list[str]:
        """The jobs that have started, in their order, as minute and attempt: `1200Z-1`."""
        file = self.output / "ran.txt"
        start = f"{self.name}-all-2031-01-01T"
        return [line.removeprefix(start) for line in file.read_text().splitlines()] if file.exists() else []

    def logged_jobs(self) -> list[tuple[str, str]]:
        """(job, status) of this schedule's runs in MLflow, in the order of jobs."""
        known = self.client.get_experiment_by_name("tiny")
        runs = self.client.search_runs([known.experiment_id], f"params.schedule = '{self.name}'")
        start = f"{self.name}-all-2031-01-01T"
        return sorted((run.info.run_name.removeprefix(start), run.info.status) for run in runs)
