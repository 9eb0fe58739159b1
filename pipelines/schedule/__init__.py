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

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_MODULE_OF = {
    "Changes": "changes",
    "Entry": "file",
    "EntryOverview": "overview",
    "History": "history",
    "Job": "history",
    "MovedRow": "changes",
    "RateRow": "changes",
    "Run": "history",
    "Schedule": "file",
    "Scheduler": "scheduler",
    "compare": "changes",
    "describe_run": "overview",
    "load_schedule": "file",
    "overview_of": "overview",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    # Imported at first use (PEP 562), so that importing this package does not take the time of its dependencies.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
