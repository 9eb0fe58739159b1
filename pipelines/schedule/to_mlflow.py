"""Logs a schedule to MLflow: one run per job, in the MLflow experiment of the experiment that the job evaluates."""

from pipelines.schedule.file import Entry
from pipelines.schedule.history import Job, Run
from pipelines.storage.store import Say
from pipelines.tracking.runs import Runs, log_to_mlflow


def log_jobs(entry: Entry, jobs: list[tuple[Run, Job]], say: Say) -> bool:
    """Logs jobs that have ended, each with the run of the schedule that it belongs to.

    A job that MLflow already has is not logged again. Returns whether MLflow has all of them now; where it cannot be
    reached, `say` is given a warning.
    """

    def write(runs: Runs) -> None:
        for run, job in jobs:
            _log_job(runs, entry, run, job)

    return log_to_mlflow(entry.experiment, say, "the next run of this entry logs it", write)


def _log_job(runs: Runs, entry: Entry, run: Run, job: Job) -> None:
    mlflow_run = runs.run("schedule", job.id, None, job.id, began=job.began)
    if runs.tags(mlflow_run).get("witness.logged") == job.status:
        return
    parameters = {"schedule": entry.schedule, "entry": run.entry, "planned": run.minute, "cron": entry.config.cron}
    runs.log_new_parameters(mlflow_run, parameters)
    runs.set_tag(mlflow_run, "witness.status", job.status)
    if job.reason:
        runs.set_tag(mlflow_run, "witness.reason", job.reason[:500])
    if run.changes is not None and job is run.jobs[-1]:
        counts = {"new_cells": len(run.changes.new), "moved_rates": len(run.changes.moved)}
        runs.log_changed_metrics(mlflow_run, {name: float(count) for name, count in counts.items()})
        runs.log_artifact(mlflow_run, "changes.txt", "\n".join(run.changes.lines()).encode() + b"\n")
    runs.end(mlflow_run, "FINISHED" if job.status == "succeeded" else "FAILED", at=job.ended)
    runs.set_tag(mlflow_run, "witness.logged", job.status)  # last, so that a job logged only in part is logged again
