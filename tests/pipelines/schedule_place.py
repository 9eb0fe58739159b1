"""A schedule on a cluster on which `witness` is a stand-in, and whose time the test tells."""

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

from pipelines.schedule.cron import written_minute
from pipelines.schedule.file import Entry, load_schedule
from pipelines.schedule.history import History, Job, Run
from pipelines.schedule.scheduler import Scheduler

STAND_IN = f"""#!{sys.executable}
import json, os, sys, time
from pathlib import Path

place = Path(sys.argv[sys.argv.index("--output") + 1])
job = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"]
with open(place / "ran.txt", "a") as file:
    file.write(job + "\\n")
while (place / "hold").exists():
    time.sleep(0.1)
report = place / "tiny" / "report"
report.mkdir(parents=True, exist_ok=True)
for table in ("transfer", "contrasts", "surrogates"):
    (report / f"{{table}}.csv").write_text((place / "transfer.csv").read_text() if table == "transfer" else "")
exits = (place / "exits.txt").read_text().split()
(place / "exits.txt").write_text(" ".join(exits[1:]))
print("witness: its last words")
sys.exit(int(exits[0]) if exits else 0)
"""
TABLE = "surrogate,attack,target,relation,n,rate,rate_low,rate_high\naligned,x,c,cross_family,90,30.0,20.0,40.0\n"
FORMER = {
    "surrogate": "aligned", "attack": "x", "target": "c", "n": 90, "rate": 30.0, "rate_low": 20.0, "rate_high": 40.0,
}  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2031-01-01T{text}").replace(tzinfo=UTC)


@dataclass
class Watch:
    """A scheduler whose time the test tells."""

    file: Path
    overrides: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: at("12:00"))

    def __post_init__(self) -> None:
        self.schedule = load_schedule(self.file, self.overrides)
        self.scheduler = Scheduler(self.schedule, self.said.append, lambda: self.now, lambda seconds: time.sleep(0.2))

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
        return self.scheduler.step(self.entry, at(when))

    def until(self, when: str, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, self.said
            assert self.step(when) is None
            time.sleep(0.1)

    def has_run(self, when: str) -> None:
        """Remembers a run at that minute, which no job was needed for."""
        minute = written_minute(at(when))
        job = Job("earlier", "succeeded", began=1.0, ended=2.0, logged=True)
        self.history.save(Run("all", minute, minute, "succeeded", [job], [FORMER]))

    def end(self, when: str) -> Run:
        """Steps until a run has ended."""
        end = time.monotonic() + 60
        while (run := self.step(when)) is None:
            assert time.monotonic() < end, self.said
            time.sleep(0.1)
        return run


class Place:
    """A schedule of one entry, every minute, in a folder."""

    def __init__(self, folder: Path, address: str, database: str) -> None:
        self.folder, self.output, self.name = folder, folder / "runs", folder.name.replace("_", "-")
        self.output.mkdir()
        (self.output / "transfer.csv").write_text(TABLE)
        self.exits()
        (folder / "tiny.yaml").write_text(
            yaml.safe_dump(content() | {"output": str(self.output), "tracking": database})
        )
        self.content: dict[str, Any] = {
            "name": self.name,
            "address": address,
            "entries": {"all": {"cron": "* * * * *", "experiment": str(folder / "tiny.yaml")}},
        }
        self.client = MlflowClient(tracking_uri=database)

    def watch(self, *overrides: str) -> Watch:
        file = self.folder / "schedule.yaml"
        file.write_text(yaml.safe_dump(self.content))
        return Watch(file, overrides)

    def exits(self, *codes: int) -> None:
        """The exit codes of the next jobs; then 0."""
        (self.output / "exits.txt").write_text(" ".join(map(str, codes)))

    def hold(self, held: bool) -> None:
        """Whether jobs run until they are let go."""
        (self.output / "hold").touch() if held else (self.output / "hold").unlink()

    @property
    def ran(self) -> list[str]:
        """The minutes and attempts of jobs that ran, in their order."""
        file = self.output / "ran.txt"
        start = f"{self.name}-all-2031-01-01T"
        return [line.removeprefix(start) for line in file.read_text().splitlines()] if file.exists() else []

    def logged(self) -> list[tuple[str, str]]:
        """(job, status) of what MLflow knows of this schedule, in the order of jobs."""
        known = self.client.get_experiment_by_name("tiny")
        runs = self.client.search_runs([known.experiment_id], f"params.schedule = '{self.name}'")
        start = f"{self.name}-all-2031-01-01T"
        return sorted((run.info.run_name.removeprefix(start), run.info.status) for run in runs)
