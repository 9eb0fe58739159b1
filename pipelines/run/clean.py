"""`witness evaluate --clean`: clean accuracy alone, which shows whether preprocessing and labels are right.

It predicts with what is there, and trains nothing. The tables are the ones that a run uses later.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from align_core.transfer import wilson
from pipelines.compute.cluster import connecting, worker_of
from pipelines.compute.kept_gpus import naming_failed_devices
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.report.outcomes import read_table
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.evaluations import Evaluation
from pipelines.stages.notes import say_notes


@dataclass(frozen=True)
class CleanAccuracy:
    """The clean accuracy of one model or surrogate on all n test images, in percent, with its Wilson interval."""

    name: str
    role: str
    n: int
    accuracy: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CleanResult:
    """What was measured.

    Attributes:
        location: the folder of the experiment.
        classes: their number; a model that guesses is right in 100 / classes percent.
        rows: models first, in the order of the experiment file, then surrogates.
        missing: models and surrogates that have still to be made.
        holes: what cannot be made or measured, each with the reason.
    """

    location: str
    classes: int
    rows: list[CleanAccuracy]
    missing: list[str]
    holes: list[str]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return asdict(self)


def evaluate_clean(request: Request) -> CleanResult:
    """Predicts the clean test images with every model that has a role, and every surrogate, whose weights are there.

    Raises InputError (nothing was written), Busy, or RunFailed (what is finished is kept).
    """
    progress, experiment = Progress(request.quiet), request.experiment()
    with ExitStack() as stack:
        blueprint = open_blueprint(request, progress, to_write=True, experiment=experiment)
        say_notes(blueprint, progress)
        store = blueprint.store
        there = _there(blueprint)
        listing = store.listing()
        is_work = any(not own.table.is_finished(listing) for own in there.values())
        if is_work:
            stack.enter_context(
                connecting(request.address, experiment, partial(progress.say, at_once=True), request.dashboard)
            )()
        stack.enter_context(store.locked())
        blueprint.inspected.save(store)
        if is_work:
            _predict(blueprint, list(there.values()), progress)
    listing = store.listing()
    failed = {own.table.folder: reason for own in there.values() if (reason := own.table.failure(store, listing))}
    rows = [_accuracy(blueprint, name, own) for name, own in there.items() if own.table.folder not in failed]
    missing = [name for name in _all(blueprint) if name not in there]
    holes = [*blueprint.holes(), *(f"{folder}: {reason}" for folder, reason in failed.items())]
    return CleanResult(store.location, experiment.data.classes_count, rows, missing, holes)


def _all(blueprint: Blueprint) -> dict[str, Predictions]:
    """Everything that predicts: models that have a role, and surrogates that are not one of these models."""
    experiment, clean = blueprint.experiment, blueprint.clean()
    for name in experiment.validation_targets:
        clean.setdefault(name, blueprint.clean_predictions(name, (name,)))
    models = [name for name in experiment.models if name in clean]
    return {name: clean[name] for name in (*models, *(name for name in clean if name not in models))}


def _there(blueprint: Blueprint) -> dict[str, Predictions]:
    return {name: own for name, own in _all(blueprint).items() if all(map(blueprint.is_made, own.members))}


def _predict(blueprint: Blueprint, predictions: Sequence[Predictions], progress: Progress) -> None:
    from pipelines.stages.evaluate import evaluate_all  # imports torch

    compute = blueprint.experiment.compute
    clean = Evaluation(None, predictions, compute.networks)
    with naming_failed_devices(blueprint.store, progress.say):
        evaluate_all(blueprint, worker_of(compute, "evaluate"), progress, [clean])


def _accuracy(blueprint: Blueprint, name: str, own: Predictions) -> CleanAccuracy:
    rows = read_table(blueprint.store, own.table, ["label", "prediction"])
    right = np.asarray(rows["label"].to_numpy() == rows["prediction"].to_numpy())
    share = wilson(int(right.sum()), len(right))
    return CleanAccuracy(name, _role(blueprint.experiment, name), len(right), share.value, share.low, share.high)


def _role(experiment: Experiment, name: str) -> str:
    roles = {
        "source": experiment.sources,
        "witness": experiment.witnesses,
        "target": experiment.targets,
        "validation target": experiment.validation_targets,
    }
    found = [role for role, names in roles.items() if name in names]
    return ", ".join(found) or ("model of a variant" if name in experiment.models else "surrogate")
