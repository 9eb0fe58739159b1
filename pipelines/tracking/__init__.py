"""MLflow, which no other room imports: runs, metrics, artifacts and the model registry.

Results are files first, and this room sends copies of them. So a server that is down costs a warning and never a
result. What flows in is an experiment, which says where MLflow is, and what its caller logs: parameters, metrics,
curves and files. What flows out is the state of an MLflow store, and aligned models from its registry.

Where to begin:
* `runs.py`: `tracking_uri` says where MLflow is. `log_to_mlflow` gives its caller a `Runs`, through which everything is
  logged, and turns failures into warnings. `Runs` finds a run again by its fingerprint, so nothing is logged twice.
* `checks.py`: `check_tracking` tells before any work what can never be logged.
* `locations.py`: lets the database of a moved or copied output folder refer to the artifacts beside it.
* `models.py`: `mlflow_model` has the files that make an aligned model one of MLflow's. `page.py`: `serve_page` shows
  MLflow's page of the experiment.
* `load.py`: `MachineLoad` measures this machine and its GPUs.
* `registry.py`: `registered` fetches a model `models:/NAME/VERSION` that another experiment aligned.

How long a server that is down delays a run (timeouts and retries) stands in `pipelines.environment`.

What is logged is decided where it is made: see `to_mlflow.py` in `report`, `sweep` and `schedule`, and
`report/live.py` for what is sent while work goes on.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.tracking.checks import check_tracking as check_tracking
    from pipelines.tracking.registry import Registered as Registered
    from pipelines.tracking.registry import registered as registered
    from pipelines.tracking.runs import Runs as Runs
    from pipelines.tracking.runs import log_to_mlflow as log_to_mlflow
    from pipelines.tracking.runs import tracking_uri as tracking_uri

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "checks": ("check_tracking",),
        "registry": (
            "Registered",
            "registered",
        ),
        "runs": (
            "Runs",
            "log_to_mlflow",
            "tracking_uri",
        ),
    },
)
