"""The commands over one experiment: run what is missing, say what is there, forecast what remains, verify the result.

What flows in is a `Request`: an experiment (a file, or one that is checked already) and how to work on it. What flows
out are the files of the experiment's output folder, which the rooms below write, and an object with the result that the
command line prints, as text or as JSON.

Where to begin:
* `request.py`: `Request`; and `open_blueprint`, with which every command begins: it checks the experiment and inspects
  its inputs before any work.
* `command.py`: `witness run` and its single stages; `RunResult` says what was made.
* `clean.py`: `witness evaluate --clean`; `evaluate_clean` gives clean accuracies alone.
* `status.py`: `witness status`; `status_of` gives the state of every network and table.
* `forecast.py`: `witness plan`; `make_forecast` gives the work that remains, its time and its space, and
  `missing_work.py` sums it up by surrogate.
* `results.py`: `run_experiment` and `load_results`, with which Python takes tables as DataFrames and images as arrays.
* `verify.py`: `witness verify`; `verify_experiment` checks that a finished experiment is what it claims to be: inputs,
  tables and report, each in a file `verify_*.py`; `verification.py` holds what was found.
* `resolved.py`: the `experiment.yaml` of the output folder.

>>> status = status_of(Request(Path("experiment.yaml")))
>>> status.is_done
True
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.run.command import RunResult as RunResult
    from pipelines.run.forecast import Forecast as Forecast
    from pipelines.run.forecast import make_forecast as make_forecast
    from pipelines.run.request import Request as Request
    from pipelines.run.request import open_blueprint as open_blueprint
    from pipelines.run.status import Status as Status
    from pipelines.run.status import status_of as status_of
    from pipelines.run.verification import Verification as Verification
    from pipelines.run.verify import verify_experiment as verify_experiment

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "command": ("RunResult",),
        "forecast": (
            "Forecast",
            "make_forecast",
        ),
        "request": (
            "Request",
            "open_blueprint",
        ),
        "status": (
            "Status",
            "status_of",
        ),
        "verification": ("Verification",),
        "verify": ("verify_experiment",),
    },
)
