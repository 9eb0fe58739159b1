"""A schedule on a real cluster: what is due runs once, whoever asks, and says what changed.

Jobs are real; the command `witness` that they run is a stand-in, which notes that it ran and does as the test wants.
The real one: in test_schedule_job. Minutes come when the test says so.
"""

import json

import pytest
from schedule_place import TABLE, Place, at

from pipelines.cli import main
from pipelines.schedule import history
from pipelines.schedule.jobs import JobServer
from pipelines.schedule.outlook import lines_of, outlook


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
    def test_another_schedules_job_is_not_taken_for_ones_own(self, place: Place, job_server: str) -> None:
        JobServer(job_server).submit(f"{place.name}-all-2031-01-01T1200Z-1", "true", None, (), {"witness.entry": "all"})
        run = place.watch().end("12:00")
        assert (run.status, run.jobs[-1].reason) == (
            "failed", "its id is taken by a job of another schedule; give this one another name",
        )  # fmt: skip


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
    def test_mlflow_is_told_later_what_it_could_not_be_told(self, place: Place, schedule_database: str) -> None:
        file = place.folder / "tiny.yaml"
        told = file.read_text()
        file.write_text(told.replace(schedule_database, "http://127.0.0.1:1"))
        watch = place.watch()
        assert watch.end("12:00").status == "succeeded"
        assert any(line.startswith("warning: logging to MLflow at http://127.0.0.1:1 failed") for line in watch.said)
        file.write_text(told)
        place.watch().end("12:01")
        assert place.logged() == [("1200Z-1", "FINISHED"), ("1201Z-1", "FINISHED")]

    @pytest.mark.slow
    def test_old_runs_are_forgotten(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "_KEPT", 2)
        watch = place.watch()
        for when in ("12:00", "12:01"):
            watch.has_run(when)
        watch.end("12:02")
        assert [run.minute[-5:-1] for run in watch.history.runs("all")] == ["1202", "1201"]


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

    def test_address_stands_for_those_of_the_file(self, place: Place, job_server: str) -> None:
        place.content["address"] = "http://127.0.0.1:1"
        file = str(place.watch().file)
        assert main(["schedule", file, "--once"]) == 2
        assert main(["schedule", file, "--once", "--address", job_server]) == 0
