"""Recurring evaluations: a schedule file says which experiments run when, and each run is a job on a Ray cluster.

What flows in is a schedule file: a cron expression and an experiment file per entry. What flows out are jobs that run
`witness run` on the cluster, a file per run in the schedule's history, the changes between the tables of two runs, and
a run per job in MLflow. The jobs need the code of `run`; this room only submits them, so it imports neither `run` nor
`sweep`.

Where to begin:
* `file.py`: the keys of a schedule file, and how an entry becomes the command that its job runs (`load_schedule`).
* `scheduler.py`: the decisions. `Scheduler.step` does what is due for one entry; `once` and `forever` repeat it.
* `jobs.py`: submitting and following a job. `job_client.py` contains what is particular to Ray's own client.
* `history.py`: what is remembered between two steps, as one JSON file per entry and planned minute.
* `changes.py`: when a rate counts as changed. `overview.py`: `witness schedule --list` and the text of a finished run.
* `cron.py`: planned minutes, always in UTC. `to_mlflow.py`: what MLflow is sent.

>>> schedule = load_schedule(Path("nightly.yaml"))      # raises InputError, naming the file and the key
>>> for run in Scheduler(schedule, print).once():       # as `witness schedule nightly.yaml --once` does
...     print(*describe_run(run), sep="\\n")
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.schedule.changes import Changes as Changes
    from pipelines.schedule.changes import MovedRow as MovedRow
    from pipelines.schedule.changes import RateRow as RateRow
    from pipelines.schedule.changes import compare as compare
    from pipelines.schedule.file import Entry as Entry
    from pipelines.schedule.file import Schedule as Schedule
    from pipelines.schedule.file import load_schedule as load_schedule
    from pipelines.schedule.history import History as History
    from pipelines.schedule.history import Job as Job
    from pipelines.schedule.history import Run as Run
    from pipelines.schedule.overview import EntryOverview as EntryOverview
    from pipelines.schedule.overview import describe_run as describe_run
    from pipelines.schedule.overview import overview_of as overview_of
    from pipelines.schedule.scheduler import Scheduler as Scheduler

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "changes": (
            "Changes",
            "MovedRow",
            "RateRow",
            "compare",
        ),
        "file": (
            "Entry",
            "Schedule",
            "load_schedule",
        ),
        "history": (
            "History",
            "Job",
            "Run",
        ),
        "overview": (
            "EntryOverview",
            "describe_run",
            "overview_of",
        ),
        "scheduler": ("Scheduler",),
    },
)
