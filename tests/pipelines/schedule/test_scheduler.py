"""A schedule on a real cluster: what is due runs once, by whichever scheduler, and the changes are reported.

The jobs are real, but the `witness` that they run is a stand-in that the test controls, and the test sets the time.
tests/test_schedule_job.py runs the real command.
"""

import json

import pytest
from schedule_on_cluster import TABLE, ScheduleOnCluster, at

from pipelines.cli import main
from pipelines.schedule import history
from pipelines.schedule.jobs import JobServer
from pipelines.schedule.overview import describe_run, overview_of


def test_what_is_due_runs_once_and_is_remembered(
    on_cluster: ScheduleOnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # the address in the schedule file takes precedence
    scheduler = on_cluster.scheduler()
    assert [view.last_run for view in overview_of(scheduler.schedule, at("12:00:05"))] == [None]
    run = scheduler.run_to_end("12:00:05")
    assert (run.minute, run.status, run.changes) == ("2031-01-01T1200Z", "succeeded", None)
    assert scheduler.step("12:00:59") is None
    assert on_cluster.started_jobs == ["1200Z-1"]
    assert describe_run(run)[0] == f"all: 2031-01-01 12:00 UTC succeeded as {on_cluster.name}-all-2031-01-01T1200Z-1"
    (view,) = overview_of(on_cluster.scheduler().schedule, at("12:00:59"))
    assert view.next_minute == at("12:01")
    assert view.as_json()["last"] == run.as_json()
    assert view.line().startswith("all: next 2031-01-01 12:01 UTC; last 2031-01-01 12:00 UTC: succeeded, ")


class TestTwoSchedulers:
    @pytest.mark.parametrize(
        "apart",
        [pytest.param(False, marks=pytest.mark.slow, id="common history"), pytest.param(True, id="own histories")],
    )
    def test_two_schedulers_run_nothing_twice(self, on_cluster: ScheduleOnCluster, apart: bool) -> None:
        own_state = [f"state={on_cluster.folder}/other"] if apart else []
        one, other = on_cluster.scheduler(), on_cluster.scheduler(*own_state)
        on_cluster.hold_jobs()
        assert one.step("12:00") is None
        assert other.step("12:00") is None
        on_cluster.release_jobs()
        ends = [one.run_to_end("12:00"), other.run_to_end("12:00")] if apart else [one.run_to_end("12:00")]
        assert {run.status for run in ends} == {"succeeded"}
        assert on_cluster.started_jobs == ["1200Z-1"]
        assert on_cluster.logged_jobs() == [("1200Z-1", "FINISHED")]
        assert any("was submitted before; following" in line for line in other.messages) == apart
        assert other.step("12:00:59") is None

    @pytest.mark.slow
    def test_a_job_of_another_schedule_is_not_followed(self, on_cluster: ScheduleOnCluster, job_server: str) -> None:
        job = f"{on_cluster.name}-all-2031-01-01T1200Z-1"
        JobServer(job_server).submit(job, "true", None, (), {"witness.entry": "all"})
        run = on_cluster.scheduler().run_to_end("12:00")
        assert (run.status, run.jobs[-1].reason) == (
            "failed", "its id is taken by a job of another schedule; give this schedule another name",
        )  # fmt: skip


def test_an_entry_never_overlaps_itself(on_cluster: ScheduleOnCluster) -> None:
    scheduler = on_cluster.scheduler()
    on_cluster.hold_jobs()
    scheduler.step_until("12:00", lambda: bool(on_cluster.started_jobs))
    for when in ("12:01", "12:01:30", "12:02"):
        assert scheduler.step(when) is None
    skipped = [line for line in scheduler.messages if "is skipped" in line]
    job = f"{on_cluster.name}-all-2031-01-01T1200Z-1"
    assert skipped == [
        f"all: 2031-01-01 12:0{minute} UTC is skipped, because {job} is still running" for minute in (1, 2)
    ]
    on_cluster.release_jobs()
    assert scheduler.run_to_end("12:02:50").minute == "2031-01-01T1200Z"
    assert scheduler.step("12:02:59") is None
    assert scheduler.run_to_end("12:03").minute == "2031-01-01T1203Z"
    assert on_cluster.started_jobs == ["1200Z-1", "1203Z-1"]


class TestAfterDowntime:
    def test_it_catches_up_once(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler("entries.all.cron=0 * * * *")
        scheduler.record_run("12:00")
        assert scheduler.run_to_end("15:20").minute == "2031-01-01T1500Z"
        missed, due = "2031-01-01 13:00 UTC", "2031-01-01 15:00 UTC"
        message = f"all: the minutes since {missed} were missed; one run, for {due}, makes up for them"
        assert message in scheduler.messages
        assert scheduler.step("15:59:59") is None
        assert on_cluster.started_jobs == ["1500Z-1"]

    @pytest.mark.slow
    def test_no_catching_up_where_it_is_off(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler("entries.all.cron=0 * * * *", "entries.all.catch_up=false")
        scheduler.record_run("12:00")
        assert scheduler.step("15:20") is None
        assert scheduler.messages == ["all: 2031-01-01 15:00 UTC was missed, and catch_up is off"]
        assert scheduler.step("15:21") is None
        assert scheduler.run_to_end("16:04").minute == "2031-01-01T1600Z"  # four minutes late is still on time
        assert on_cluster.started_jobs == ["1600Z-1"]

    @pytest.mark.slow
    def test_minutes_before_a_new_entry_are_not_missed(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler("entries.all.cron=0 * * * *")
        assert scheduler.step("12:20") is None
        assert scheduler.messages == ["all: first due at 2031-01-01 13:00 UTC"]
        assert [view.last_run for view in overview_of(scheduler.schedule, at("12:20"))] == [None]
        assert on_cluster.scheduler("entries.all.cron=0 * * * *").run_to_end("13:50").minute == "2031-01-01T1300Z"


class TestChanges:
    def test_new_cells_and_moved_rates(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        scheduler.record_run("12:00")
        moved = TABLE.replace("30.0,20.0,40.0", "55.0,45.0,65.0") + "aligned,x,e,cross_family,90,10.0,5.0,15.0\n"
        (on_cluster.output / "transfer.csv").write_text(moved)
        on_cluster.set_exit_codes(2)
        scheduler.run_to_end("12:01")  # a failed run has no table, so it is left out of the comparison
        run = scheduler.run_to_end("12:02")
        assert describe_run(run)[1:] == [
            "  new: aligned, x, e: 10.0 (5.0 to 15.0)",
            "  moved: aligned, x, c: 30.0 (20.0 to 40.0) -> 55.0 (45.0 to 65.0)",
        ]
        kept = json.loads((on_cluster.output / f".schedules/{on_cluster.name}/all/2031-01-01T1202Z.json").read_text())
        assert [row["target"] for row in kept["changes"]["new"] + kept["changes"]["moved"]] == ["e", "c"]
        known = on_cluster.client.get_experiment_by_name("tiny")
        (logged,) = on_cluster.client.search_runs([known.experiment_id], f"run_name = '{run.jobs[-1].id}'")
        assert logged.data.metrics == {"new_cells": 1, "moved_rates": 1}
        assert logged.data.tags["witness.kind"] == "schedule"
        assert logged.data.params["planned"] == "2031-01-01T1202Z"
        assert [file.path for file in on_cluster.client.list_artifacts(logged.info.run_id)] == ["changes.txt"]

    @pytest.mark.slow
    def test_no_changes(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        scheduler.record_run("12:00")
        assert describe_run(scheduler.run_to_end("12:01"))[1:] == [
            "  no detectable change: no new cell, and every interval overlaps the one before"
        ]

    @pytest.mark.slow
    def test_what_mlflow_could_not_be_sent_is_logged_later(
        self, on_cluster: ScheduleOnCluster, schedule_database: str
    ) -> None:
        file = on_cluster.folder / "tiny.yaml"
        original = file.read_text()
        file.write_text(original.replace(schedule_database, "http://127.0.0.1:1"))
        scheduler = on_cluster.scheduler()
        assert scheduler.run_to_end("12:00").status == "succeeded"
        assert any(
            line.startswith("warning: logging to MLflow at http://127.0.0.1:1 failed") for line in scheduler.messages
        )
        file.write_text(original)
        on_cluster.scheduler().run_to_end("12:01")
        assert on_cluster.logged_jobs() == [("1200Z-1", "FINISHED"), ("1201Z-1", "FINISHED")]

    @pytest.mark.slow
    def test_old_runs_are_deleted(self, on_cluster: ScheduleOnCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "_RUNS_KEPT", 2)
        scheduler = on_cluster.scheduler()
        for when in ("12:00", "12:01"):
            scheduler.record_run(when)
        scheduler.run_to_end("12:02")
        assert [run.minute[-5:-1] for run in scheduler.history.runs("all")] == ["1202", "1201"]


@pytest.mark.slow
class TestCommand:
    @pytest.mark.parametrize(("exits", "code", "status"), [((), 0, "succeeded"), ((2,), 1, "failed")])
    def test_once(
        self,
        on_cluster: ScheduleOnCluster,
        capsys: pytest.CaptureFixture[str],
        exits: tuple[int, ...],
        code: int,
        status: str,
    ) -> None:
        on_cluster.set_exit_codes(*exits)
        file = str(on_cluster.scheduler().file)
        assert main(["schedule", file, "--once", "--json"]) == code
        printed = json.loads(capsys.readouterr().out)
        assert printed["schedule"] == on_cluster.name
        (run,) = printed["runs"]
        assert (run["entry"], run["status"]) == ("all", status)
        assert main(["schedule", file, "--list", "--json"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)["entries"]
        assert listed["last"] == run
        assert listed["next"] > run["minute"]

    def test_once_waits_for_the_minute_that_is_due_and_not_for_an_earlier_one(
        self, on_cluster: ScheduleOnCluster, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scheduler = on_cluster.scheduler()
        on_cluster.hold_jobs()
        scheduler.step_until("12:00", lambda: bool(on_cluster.started_jobs))
        later = on_cluster.scheduler()
        later.now = at("12:01:05")
        assert later.wrapped.once() == []
        assert "is skipped" in later.messages[-1]
        on_cluster.release_jobs()
        same = on_cluster.scheduler()
        assert [run.status for run in same.wrapped.once()] == ["succeeded"]

    def test_the_flag_address_replaces_that_of_the_file(self, on_cluster: ScheduleOnCluster, job_server: str) -> None:
        on_cluster.content["address"] = "http://127.0.0.1:1"
        file = str(on_cluster.scheduler().file)
        assert main(["schedule", file, "--once"]) == 2
        assert main(["schedule", file, "--once", "--address", job_server]) == 0
