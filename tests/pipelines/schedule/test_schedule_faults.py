"""Schedulers that are killed, jobs that fail and clusters that are gone: nothing runs twice, nothing is lost."""

import shutil

import pytest
from ray.job_submission import JobSubmissionClient
from schedule_place import Place, at

from pipelines.schedule.history import Job, Run

pytestmark = pytest.mark.slow


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

    def test_nor_is_what_was_stopped(self, place: Place, job_server: str) -> None:
        watch = place.watch()
        place.hold(True)
        watch.until("12:00", lambda: bool(place.ran))
        JobSubmissionClient(job_server).stop_job(watch.latest.jobs[-1].id)
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


class Stop(Exception):
    pass


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
