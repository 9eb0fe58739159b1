"""Killed schedulers, failed jobs and unreachable clusters: no minute runs twice, and none is lost."""

import shutil

import pytest
from ray.job_submission import JobSubmissionClient
from schedule_on_cluster import ScheduleOnCluster, at

from pipelines.schedule.history import Job, Run

pytestmark = pytest.mark.slow


class TestKilledScheduler:
    def test_killed_before_it_submitted(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        job = Job(f"{on_cluster.name}-all-2031-01-01T1200Z-1")
        scheduler.history.save(Run("all", "2031-01-01T1200Z", "2031-01-01T1200Z", jobs=[job]))
        assert scheduler.run_to_end("12:00:30").status == "succeeded"
        assert on_cluster.started_jobs == ["1200Z-1"]

    def test_killed_before_it_submitted_and_restarted_late(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        job = Job(f"{on_cluster.name}-all-2031-01-01T1200Z-1")
        scheduler.history.save(Run("all", "2031-01-01T1200Z", "2031-01-01T1200Z", jobs=[job]))
        assert scheduler.run_to_end("12:30").minute == "2031-01-01T1230Z"
        assert on_cluster.started_jobs == ["1230Z-1"]

    def test_killed_before_it_recorded_the_submission(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        on_cluster.hold_jobs()
        scheduler.step_until("12:00", lambda: bool(on_cluster.started_jobs))
        run = scheduler.latest
        run.jobs[-1].status = "planned"
        scheduler.history.save(run)
        again = on_cluster.scheduler()
        assert again.step("12:00:40") is None
        on_cluster.release_jobs()
        assert again.run_to_end("12:00:50").status == "succeeded"
        assert on_cluster.started_jobs == ["1200Z-1"]

    def test_killed_while_the_job_ran(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        scheduler.step_until("12:00", lambda: bool(on_cluster.started_jobs))
        again = on_cluster.scheduler()
        assert again.run_to_end("12:10").minute == "2031-01-01T1200Z"
        assert on_cluster.started_jobs == ["1200Z-1"]

    def test_its_history_is_unreadable(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        scheduler.run_to_end("12:00")
        (file,) = (on_cluster.output / ".schedules").rglob("*.json")
        file.write_text('{"entry": "al')
        assert on_cluster.scheduler().run_to_end("12:00").status == "succeeded"
        assert on_cluster.started_jobs == ["1200Z-1"]


class TestFailure:
    def test_a_failed_job_is_tried_again(self, on_cluster: ScheduleOnCluster) -> None:
        on_cluster.set_exit_codes(1)
        scheduler = on_cluster.scheduler()
        run = scheduler.run_to_end("12:00")
        assert [(job.status, job.reason) for job in run.jobs] == [
            ("failed", "witness: its last line"), ("succeeded", ""),
        ]  # fmt: skip
        assert run.status == "succeeded"
        assert on_cluster.started_jobs == ["1200Z-1", "1200Z-2"]
        assert on_cluster.logged_jobs() == [("1200Z-1", "FAILED"), ("1200Z-2", "FINISHED")]

    def test_no_more_often_than_retries_allows(self, on_cluster: ScheduleOnCluster) -> None:
        on_cluster.set_exit_codes(1, 1, 1, 1)
        run = on_cluster.scheduler("entries.all.retries=2").run_to_end("12:00")
        assert (run.status, len(run.jobs)) == ("failed", 3)
        assert len(on_cluster.started_jobs) == 3

    def test_wrong_input_is_not_tried_again(self, on_cluster: ScheduleOnCluster) -> None:
        on_cluster.set_exit_codes(2)
        run = on_cluster.scheduler().run_to_end("12:00")
        assert (run.status, on_cluster.started_jobs) == ("failed", ["1200Z-1"])

    def test_a_stopped_job_is_not_tried_again(self, on_cluster: ScheduleOnCluster, job_server: str) -> None:
        scheduler = on_cluster.scheduler()
        on_cluster.hold_jobs()
        scheduler.step_until("12:00", lambda: bool(on_cluster.started_jobs))
        JobSubmissionClient(job_server).stop_job(scheduler.latest.jobs[-1].id)
        assert scheduler.run_to_end("12:00").status == "stopped"
        assert on_cluster.started_jobs == ["1200Z-1"]

    def test_a_restarted_cluster_does_not_know_the_job(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        job = Job(f"{on_cluster.name}-all-2031-01-01T1200Z-1", "running")
        scheduler.history.save(Run("all", "2031-01-01T1200Z", "2031-01-01T1200Z", jobs=[job]))
        run = scheduler.run_to_end("12:00:30")
        assert run.jobs[0].reason == "the cluster does not know the job any more; it may have been restarted"
        assert (run.status, on_cluster.started_jobs) == ("succeeded", ["1200Z-2"])

    def test_a_job_that_the_cluster_rejects(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        object.__setattr__(scheduler.entry, "working_dir", on_cluster.folder / "gone")
        run = scheduler.run_to_end("12:00")
        assert run.status == "failed"
        assert run.jobs[-1].reason.startswith("the cluster rejected the job: ")

    def test_a_report_that_this_machine_cannot_read(self, on_cluster: ScheduleOnCluster) -> None:
        (on_cluster.output / "transfer.csv").write_text("")
        scheduler = on_cluster.scheduler()
        scheduler.step_until("12:00", lambda: bool(on_cluster.started_jobs))
        scheduler.step_until("12:00", lambda: (on_cluster.output / "tiny" / "report" / "surrogates.csv").exists())
        shutil.rmtree(on_cluster.output / "tiny")
        run = scheduler.run_to_end("12:00")
        assert (run.status, run.table) == ("succeeded", None)
        assert any("is unreadable" in line and "the report in" in line for line in scheduler.messages)


class Stop(Exception):
    """Ends `forever`."""


class TestForever:
    def test_an_unreachable_cluster_is_reported_once_and_tried_again(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler("address=http://127.0.0.1:1")
        waits = iter(range(5))

        def wait(seconds: float) -> None:
            if next(waits, None) is None:
                raise Stop

        scheduler.wrapped._wait = wait
        with pytest.raises(Stop):
            next(scheduler.wrapped.forever())
        (message,) = scheduler.messages
        assert "no job server could be reached at http://127.0.0.1:1" in message
        assert scheduler.history.latest("all") is None
        back = on_cluster.scheduler()
        assert next(back.wrapped.forever()).minute == "2031-01-01T1200Z"

    def test_nothing_is_submitted_while_the_history_is_not_writable(self, on_cluster: ScheduleOnCluster) -> None:
        (on_cluster.output / ".schedules").touch()
        scheduler = on_cluster.scheduler()
        with pytest.raises(OSError, match="schedules"):
            scheduler.step("12:00")
        (on_cluster.output / ".schedules").unlink()
        assert scheduler.run_to_end("12:00").status == "succeeded"
        assert on_cluster.started_jobs == ["1200Z-1"]

    def test_one_minute_after_another(self, on_cluster: ScheduleOnCluster) -> None:
        scheduler = on_cluster.scheduler()
        runs = scheduler.wrapped.forever()
        for minute in ("12:00", "12:01"):
            scheduler.now = at(minute)
            assert next(runs).status == "succeeded"
        assert on_cluster.started_jobs == ["1200Z-1", "1201Z-1"]
