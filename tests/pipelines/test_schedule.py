"""A schedule on a real cluster: what is due runs once, whoever asks and however often they are killed.

Jobs are real; the command `witness` that they run is a stand-in, which notes that it ran and does as the test wants.
The real one: in test_schedule_job. Minutes come when the test says so.
"""

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_cluster import running_cluster
from mlflow import MlflowClient
from ray.job_submission import JobSubmissionClient
from tiny_experiment import content

from pipelines import schedule, schedule_history
from pipelines.cli import main
from pipelines.cron import written_minute
from pipelines.jobs import JobServer
from pipelines.schedule import Scheduler
from pipelines.schedule_file import Entry, load_schedule
from pipelines.schedule_history import History, Job, Run
from pipelines.schedule_outlook import lines_of, outlook

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


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The job server of a cluster on which `witness` is the stand-in."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "witness").write_text(STAND_IN)
    (folder / "witness").chmod(stat.S_IRWXU)
    # A process that has shown one token shows it to every later cluster: this one asks for none.
    with running_cluster(folder, RAY_AUTH_MODE="disabled", PATH=f"{folder}:{os.environ['PATH']}") as (server, _):
        end = time.monotonic() + 90
        while True:
            try:
                JobServer(server).submit("first", "true", None, (), {})
                break
            except RuntimeError:
                assert time.monotonic() < end
                time.sleep(0.5)
        yield server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


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


@pytest.fixture
def place(tmp_path: Path, address: str, database: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(schedule, "_LEAVE_S", 1.0)
    return Place(tmp_path, address, database)


def test_what_is_due_runs_once_and_is_remembered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # the schedule's own address counts
    watch = place.watch()
    assert [view.last for view in outlook(watch.schedule, at("12:00:05"))] == [None]
    run = watch.end("12:00:05")
    assert (run.minute, run.status, run.changes) == ("2031-01-01T1200Z", "succeeded", None)
    assert watch.step("12:00:59") is None
    assert place.ran == ["1200Z-1"]
    assert lines_of(run)[0] == f"all: 2031-01-01 12:00 UTC succeeded as {place.name}-all-2031-01-01T1200Z-1"
    (view,) = outlook(place.watch().schedule, at("12:00:59"))
    assert view.following == at("12:01")
    assert view.as_json()["last"] == run.as_json()
    assert view.line().startswith("all: next 2031-01-01 12:01 UTC; last 2031-01-01 12:00 UTC: succeeded, ")


class TestTwoSchedulers:
    @pytest.mark.parametrize(
        "apart", [pytest.param(False, marks=pytest.mark.slow, id="one memory"), pytest.param(True, id="each its own")]
    )
    def test_they_run_nothing_twice(self, place: Place, apart: bool) -> None:
        one, other = place.watch(), place.watch(*([f"state={place.folder}/other"] if apart else []))
        place.hold(True)
        assert one.step("12:00") is None
        assert other.step("12:00") is None
        place.hold(False)
        ends = [one.end("12:00"), other.end("12:00")] if apart else [one.end("12:00")]
        assert {run.status for run in ends} == {"succeeded"}
        assert place.ran == ["1200Z-1"]
        assert place.logged() == [("1200Z-1", "FINISHED")]
        assert any("was submitted already and is followed" in line for line in other.said) == apart
        assert other.step("12:00:59") is None

    @pytest.mark.slow
    def test_another_schedules_job_is_not_taken_for_ones_own(self, place: Place, address: str) -> None:
        JobServer(address).submit(f"{place.name}-all-2031-01-01T1200Z-1", "true", None, (), {"witness.entry": "all"})
        run = place.watch().end("12:00")
        assert (run.status, run.jobs[-1].reason) == (
            "failed", "its id is taken by a job of another schedule; give this one another name",
        )  # fmt: skip


@pytest.mark.slow
class TestKilled:
    def test_before_it_submitted(self, place: Place) -> None:
        watch = place.watch()
        job = Job(f"{place.name}-all-2031-01-01T1200Z-1")
        watch.history.save(Run("all", "2031-01-01T1200Z", "2031-01-01T1200Z", jobs=[job]))
        assert watch.end("12:00:30").status == "succeeded"
        assert place.ran == ["1200Z-1"]

    def test_before_it_submitted_and_gone_for_long(self, place: Place) -> None:
        watch = place.watch()
        job = Job(f"{place.name}-all-2031-01-01T1200Z-1")
        watch.history.save(Run("all", "2031-01-01T1200Z", "2031-01-01T1200Z", jobs=[job]))
        assert watch.end("12:30").minute == "2031-01-01T1230Z"
        assert place.ran == ["1230Z-1"]

    def test_before_it_noted_that_it_had_submitted(self, place: Place) -> None:
        watch = place.watch()
        place.hold(True)
        watch.until("12:00", lambda: bool(place.ran))
        run = watch.latest
        run.jobs[-1].status = "planned"
        watch.history.save(run)
        again = place.watch()
        assert again.step("12:00:40") is None
        place.hold(False)
        assert again.end("12:00:50").status == "succeeded"
        assert place.ran == ["1200Z-1"]

    def test_while_the_job_ran_and_ended(self, place: Place) -> None:
        watch = place.watch()
        watch.until("12:00", lambda: bool(place.ran))
        again = place.watch()
        assert again.end("12:10").minute == "2031-01-01T1200Z"
        assert place.ran == ["1200Z-1"]

    def test_its_memory_damaged(self, place: Place) -> None:
        watch = place.watch()
        watch.end("12:00")
        (file,) = (place.output / ".schedules").rglob("*.json")
        file.write_text('{"entry": "al')
        assert place.watch().end("12:00").status == "succeeded"
        assert place.ran == ["1200Z-1"]


def test_an_entry_never_overlaps_itself(place: Place) -> None:
    watch = place.watch()
    place.hold(True)
    watch.until("12:00", lambda: bool(place.ran))
    for when in ("12:01", "12:01:30", "12:02"):
        assert watch.step(when) is None
    skipped = [line for line in watch.said if "is skipped" in line]
    job = f"{place.name}-all-2031-01-01T1200Z-1"
    assert skipped == [f"all: 2031-01-01 12:0{minute} UTC is skipped: {job} is still running" for minute in (1, 2)]
    place.hold(False)
    assert watch.end("12:02:50").minute == "2031-01-01T1200Z"
    assert watch.step("12:02:59") is None
    assert watch.end("12:03").minute == "2031-01-01T1203Z"
    assert place.ran == ["1200Z-1", "1203Z-1"]


class TestAfterDowntime:
    def test_it_catches_up_once(self, place: Place) -> None:
        watch = place.watch("entries.all.cron=0 * * * *")
        watch.has_run("12:00")
        assert watch.end("15:20").minute == "2031-01-01T1500Z"
        assert "all: missed since 2031-01-01 13:00 UTC; the one run of 2031-01-01 15:00 UTC catches up" in watch.said
        assert watch.step("15:59:59") is None
        assert place.ran == ["1500Z-1"]

    @pytest.mark.slow
    def test_or_not_where_it_must_not(self, place: Place) -> None:
        watch = place.watch("entries.all.cron=0 * * * *", "entries.all.catch_up=false")
        watch.has_run("12:00")
        assert watch.step("15:20") is None
        assert watch.said == ["all: 2031-01-01 15:00 UTC was missed, and is not caught up"]
        assert watch.step("15:21") is None
        assert watch.end("16:04").minute == "2031-01-01T1600Z"  # so late a start is no downtime
        assert place.ran == ["1600Z-1"]

    @pytest.mark.slow
    def test_what_was_missed_before_it_was_first_met_does_not_count(self, place: Place) -> None:
        watch = place.watch("entries.all.cron=0 * * * *")
        assert watch.step("12:20") is None
        assert watch.said == ["all: waits for 2031-01-01 13:00 UTC"]
        assert [view.last for view in outlook(watch.schedule, at("12:20"))] == [None]
        assert place.watch("entries.all.cron=0 * * * *").end("13:50").minute == "2031-01-01T1300Z"


@pytest.mark.slow
class TestFailure:
    def test_a_failed_job_is_tried_again(self, place: Place) -> None:
        place.exits(1)
        watch = place.watch()
        run = watch.end("12:00")
        assert [(job.status, job.reason) for job in run.jobs] == [
            ("failed", "witness: its last words"), ("succeeded", ""),
        ]  # fmt: skip
        assert run.status == "succeeded"
        assert place.ran == ["1200Z-1", "1200Z-2"]
        assert place.logged() == [("1200Z-1", "FAILED"), ("1200Z-2", "FINISHED")]

    def test_as_often_as_it_may_be(self, place: Place) -> None:
        place.exits(1, 1, 1, 1)
        run = place.watch("entries.all.retries=2").end("12:00")
        assert (run.status, len(run.jobs)) == ("failed", 3)
        assert len(place.ran) == 3

    def test_wrong_input_is_not_tried_again(self, place: Place) -> None:
        place.exits(2)
        run = place.watch().end("12:00")
        assert (run.status, place.ran) == ("failed", ["1200Z-1"])

    def test_nor_is_what_was_stopped(self, place: Place, address: str) -> None:
        watch = place.watch()
        place.hold(True)
        watch.until("12:00", lambda: bool(place.ran))
        JobSubmissionClient(address).stop_job(watch.latest.jobs[-1].id)
        assert watch.end("12:00").status == "stopped"
        assert place.ran == ["1200Z-1"]

    def test_a_cluster_that_was_started_anew(self, place: Place) -> None:
        watch = place.watch()
        job = Job(f"{place.name}-all-2031-01-01T1200Z-1", "running")
        watch.history.save(Run("all", "2031-01-01T1200Z", "2031-01-01T1200Z", jobs=[job]))
        run = watch.end("12:00:30")
        assert run.jobs[0].reason == "the cluster knows it no longer: was it started anew?"
        assert (run.status, place.ran) == ("succeeded", ["1200Z-2"])

    def test_a_job_that_the_cluster_will_not_take(self, place: Place) -> None:
        watch = place.watch()
        object.__setattr__(watch.entry, "working_dir", place.folder / "gone")
        run = watch.end("12:00")
        assert run.status == "failed"
        assert run.jobs[-1].reason.startswith("not taken by the cluster: ")

    def test_a_report_that_cannot_be_reached(self, place: Place) -> None:
        (place.output / "transfer.csv").write_text("")
        watch = place.watch()
        watch.until("12:00", lambda: bool(place.ran))
        watch.until("12:00", lambda: (place.output / "tiny" / "report" / "surrogates.csv").exists())
        shutil.rmtree(place.output / "tiny")
        run = watch.end("12:00")
        assert (run.status, run.table) == ("succeeded", None)
        assert any("no report could be read in" in line for line in watch.said)


class TestChanges:
    def test_new_cells_and_moved_rates(self, place: Place) -> None:
        watch = place.watch()
        watch.has_run("12:00")
        moved = TABLE.replace("30.0,20.0,40.0", "55.0,45.0,65.0") + "aligned,x,e,cross_family,90,10.0,5.0,15.0\n"
        (place.output / "transfer.csv").write_text(moved)
        place.exits(2)
        watch.end("12:01")  # one that failed has nothing to compare, and is not compared with
        run = watch.end("12:02")
        assert lines_of(run)[1:] == [
            "  new: aligned, x, e: 10.0 (5.0 to 15.0)",
            "  moved: aligned, x, c: 30.0 (20.0 to 40.0) -> 55.0 (45.0 to 65.0)",
        ]
        kept = json.loads((place.output / f".schedules/{place.name}/all/2031-01-01T1202Z.json").read_text())
        assert [row["target"] for row in kept["changes"]["new"] + kept["changes"]["moved"]] == ["e", "c"]
        known = place.client.get_experiment_by_name("tiny")
        (logged,) = place.client.search_runs([known.experiment_id], f"run_name = '{run.jobs[-1].id}'")
        assert logged.data.metrics == {"new_cells": 1, "moved_rates": 1}
        assert logged.data.tags["witness.kind"] == "schedule"
        assert logged.data.params["planned"] == "2031-01-01T1202Z"
        assert [file.path for file in place.client.list_artifacts(logged.info.run_id)] == ["changes.txt"]

    @pytest.mark.slow
    def test_none(self, place: Place) -> None:
        watch = place.watch()
        watch.has_run("12:00")
        assert lines_of(watch.end("12:01"))[1:] == ["  nothing changed that the intervals could tell"]

    @pytest.mark.slow
    def test_mlflow_is_told_later_what_it_could_not_be_told(self, place: Place, database: str) -> None:
        file = place.folder / "tiny.yaml"
        told = file.read_text()
        file.write_text(told.replace(database, "http://127.0.0.1:1"))
        watch = place.watch()
        assert watch.end("12:00").status == "succeeded"
        assert any(line.startswith("warning: MLflow at http://127.0.0.1:1 could not be told") for line in watch.said)
        file.write_text(told)
        place.watch().end("12:01")
        assert place.logged() == [("1200Z-1", "FINISHED"), ("1201Z-1", "FINISHED")]

    @pytest.mark.slow
    def test_old_runs_are_forgotten(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(schedule_history, "_KEPT", 2)
        watch = place.watch()
        for when in ("12:00", "12:01"):
            watch.has_run(when)
        watch.end("12:02")
        assert [run.minute[-5:-1] for run in watch.history.runs("all")] == ["1202", "1201"]


class Stop(Exception):
    pass


@pytest.mark.slow
class TestForever:
    def test_a_cluster_that_is_gone_is_told_once_and_asked_again(self, place: Place) -> None:
        watch = place.watch("address=http://127.0.0.1:1")
        waits = iter(range(5))

        def wait(seconds: float) -> None:
            if next(waits, None) is None:
                raise Stop

        watch.scheduler._wait = wait
        with pytest.raises(Stop):
            next(watch.scheduler.forever())
        assert len(watch.said) == 1 and "no job server could be reached at http://127.0.0.1:1" in watch.said[0]
        assert watch.history.latest("all") is None
        back = place.watch()
        assert next(back.scheduler.forever()).minute == "2031-01-01T1200Z"

    def test_what_cannot_be_remembered_is_not_submitted(self, place: Place) -> None:
        (place.output / ".schedules").touch()
        watch = place.watch()
        with pytest.raises(OSError, match="schedules"):
            watch.step("12:00")
        (place.output / ".schedules").unlink()
        assert watch.end("12:00").status == "succeeded"
        assert place.ran == ["1200Z-1"]

    def test_minute_after_minute(self, place: Place) -> None:
        watch = place.watch()
        runs = watch.scheduler.forever()
        for minute in ("12:00", "12:01"):
            watch.now = at(minute)
            assert next(runs).status == "succeeded"
        assert place.ran == ["1200Z-1", "1201Z-1"]


@pytest.mark.slow
class TestCommand:
    @pytest.mark.parametrize(("exits", "code", "status"), [((), 0, "succeeded"), ((2,), 1, "failed")])
    def test_once(
        self, place: Place, capsys: pytest.CaptureFixture[str], exits: tuple[int, ...], code: int, status: str
    ) -> None:
        place.exits(*exits)
        file = str(place.watch().file)
        assert main(["schedule", file, "--once", "--json"]) == code
        said = json.loads(capsys.readouterr().out)
        assert said["schedule"] == place.name
        (run,) = said["runs"]
        assert (run["entry"], run["status"]) == ("all", status)
        assert main(["schedule", file, "--list", "--json"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)["entries"]
        assert listed["last"] == run
        assert listed["next"] > run["minute"]

    def test_once_waits_for_its_own_minute_and_not_for_an_earlier_one(
        self, place: Place, capsys: pytest.CaptureFixture[str]
    ) -> None:
        watch = place.watch()
        place.hold(True)
        watch.until("12:00", lambda: bool(place.ran))
        later = place.watch()
        later.now = at("12:01:05")
        assert later.scheduler.once() == []
        assert "is skipped" in later.said[-1]
        place.hold(False)
        same = place.watch()
        assert [run.status for run in same.scheduler.once()] == ["succeeded"]

    def test_address_stands_for_those_of_the_file(self, place: Place, address: str) -> None:
        place.content["address"] = "http://127.0.0.1:1"
        file = str(place.watch().file)
        assert main(["schedule", file, "--once"]) == 2
        assert main(["schedule", file, "--once", "--address", address]) == 0
