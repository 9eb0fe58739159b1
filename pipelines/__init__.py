"""The engine room of Witness, over `align_core`: Ray Train, Tune and Data, MLflow, the report and the command line.

From Python:

    from pipelines import AdversarialImages, run_experiment

    results = run_experiment("experiment.yaml")
    results.transfer                                    # a DataFrame
    results.adversarial_images("aligned", "pgd")        # arrays by image id
    AdversarialImages("experiment.yaml", "aligned", "pgd")   # a torch Dataset; CleanTestImages is another

The rooms, each of which imports only from those before it: `storage`, `experiment`, `tracking`, `compute`, `stages`,
`report`, then the commands `run`, `export`, `sweep` and `schedule`, and `cli` on top. README.md in this folder is the
reference.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from align_core.errors import InputError as InputError
    from pipelines.export.dataset import AdversarialImages as AdversarialImages
    from pipelines.export.dataset import CleanTestImages as CleanTestImages
    from pipelines.failure import Busy as Busy
    from pipelines.failure import RunFailed as RunFailed
    from pipelines.run.results import Images as Images
    from pipelines.run.results import Results as Results
    from pipelines.run.results import load_results as load_results
    from pipelines.run.results import run_experiment as run_experiment

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "align_core.errors": ("InputError",),
        "failure": ("Busy", "RunFailed"),
        "pipelines.export.dataset": ("AdversarialImages", "CleanTestImages"),
        "pipelines.run.results": ("Images", "Results", "load_results", "run_experiment"),
    },
)
