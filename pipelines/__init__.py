"""The engine room of Witness, over `align_core`: Ray Train, Tune and Data, MLflow, the report and the command line.

From Python:

    from pipelines import run_experiment

    results = run_experiment("experiment.yaml")
    results.transfer                                    # a DataFrame
    results.adversarial_images("aligned", "pgd")        # arrays by image id

The rooms, each of which imports only from those before it: `storage`, `experiment`, `tracking`, `compute`, `stages`,
`report`, then the commands `run`, `sweep` and `schedule`, and `cli` on top. README.md in this folder is the reference.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from align_core.errors import InputError
    from pipelines.failure import Busy, RunFailed
    from pipelines.run.results import Images, Results, load_results, run_experiment

__all__ = ["Busy", "Images", "InputError", "Results", "RunFailed", "load_results", "run_experiment"]

__getattr__ = lazy_exports(
    __name__,
    {
        "Busy": ".failure",
        "Images": ".run.results",
        "InputError": "align_core.errors",
        "Results": ".run.results",
        "RunFailed": ".failure",
        "load_results": ".run.results",
        "run_experiment": ".run.results",
    },
)
