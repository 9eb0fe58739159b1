"""A run from the experiment file to the report: it does whatever is missing, and nothing that is there."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

from align_core.errors import InputError
from pipelines.compute.cluster import Worker, connecting, may_work_here, worker_of
from pipelines.compute.kept_gpus import naming_failed_devices
from pipelines.experiment.config import Experiment
from pipelines.experiment.wraps import unwrapped
from pipelines.progress import Progress, Spent
from pipelines.report.live import shown_live
from pipelines.report.page import make_report
from pipelines.report.tabled import Report
from pipelines.report.to_mlflow import log_report
from pipelines.run.request import Request, check_cache_at_once, naming_its_file, open_blueprint
from pipelines.run.resolved import write_resolved
from pipelines.stages.blueprint import STAGES, Blueprint
from pipelines.stages.cache_folder import check_cache
from pipelines.stages.effects import without_effect
from pipelines.stages.notes import say_notes
from pipelines.storage.credentials import without_credentials
from pipelines.tracking.runs import tracking_uri


@dataclass
class RunResult:
    """What a run did.

    Attributes:
        location: the folder of the experiment. tracking: the MLflow URI, without credentials.
        made: networks and chunks that were made, by stage.
        report: the tables; None where the run did not come to the report.
        logged: whether MLflow holds the report.
        spent: the time of every part.
        holes: networks and tables that could not be made, each with the reason; the report is without them.
        warnings: surrogates whose alignment did not work, a sentence each.
    """

    location: str
    tracking: str
    made: dict[str, int] = field(default_factory=dict)
    report: Report | None = field(default=None, repr=False)  # thousands of rows
    logged: bool = False
    spent: list[Spent] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        report = {} if self.report is None else {"report": f"{self.location}/report", "means": self.report.means()}
        return {
            "location": self.location,
            "tracking": self.tracking,
            "made": self.made,
            "logged": self.logged,
            "spent": [asdict(spent) for spent in self.spent],
            "holes": self.holes,
            "warnings": self.warnings,
            **report,
        }


def run(request: Request, stages: Sequence[str] = STAGES, log: bool = False) -> RunResult:
    """Does what is missing of `stages`, and reports. `log` sends MLflow even what was logged before.

    Raises InputError (nothing was written), Busy, or RunFailed (what is finished is kept).
    """
    progress, experiment = Progress(request.quiet), request.experiment()
    stages = _asked_for(stages, experiment)
    work = [stage for stage in stages if stage != "report"]
    if "align" in work:
        check_cache_at_once(request, experiment)
    with ExitStack() as stack:
        workers = None
        say_at_once = partial(progress.say, at_once=True)

        @cache
        def connection() -> Callable[[], None]:  # begins to connect, once; what it returns waits for that, once
            return cache(stack.enter_context(connecting(request.address, experiment, say_at_once, request.dashboard)))

        if "align" in work and _must_train(experiment):  # so Ray will be needed: it starts while models are inspected
            connection()
        blueprint = open_blueprint(
            request, progress, to_write=True, experiment=experiment, connect=lambda: connection()()
        )
        say_notes(blueprint, progress)
        blueprint.check_finished(STAGES[: STAGES.index(stages[0])])  # before anything is written
        store = blueprint.store
        result = RunResult(store.location, without_credentials(tracking_uri(experiment)), spent=progress.spent)
        if any(blueprint.missing(stage) for stage in work):
            connection()()  # whatever the cluster cannot do is found before anything is written
            with naming_its_file(request):
                workers = _workers(blueprint, work)
        stack.enter_context(store.locked())
        if workers is not None:
            stack.enter_context(progress.logged(store))
        blueprint.refresh()
        blueprint.inspected.save(store)
        write_resolved(blueprint)
        if workers is not None:
            with naming_failed_devices(store, progress.say), shown_live(blueprint):
                result.made = _make(blueprint, workers, progress)
            write_resolved(blueprint)
        elif work:
            progress.say("everything is there already: nothing to compute")
        blueprint.check_finished(work)
        result.holes = blueprint.holes()
        result.warnings = list(without_effect(blueprint))
        if "report" in stages:
            blueprint.check_finished()
            result.holes = blueprint.holes()
            result.report, is_new = make_report(blueprint, progress.say)
            result.made["report"] = int(is_new)
            result.logged = log_report(blueprint, result.report, progress.say, again=log)
    return result


def _asked_for(stages: Sequence[str], experiment: Experiment) -> Sequence[str]:
    """The stages without `reasons` where the experiment has none. Raises InputError where that was the only one."""
    if experiment.reasons is not None:
        return stages
    if list(stages) == ["reasons"]:
        raise InputError(
            f"{experiment.name}: the experiment has no reasons; add the section `reasons: {{}}` to its file"
        )
    return [stage for stage in stages if stage != "reasons"]


def _must_train(experiment: Experiment) -> bool:
    """Whether a model that a run needs has certainly still to be trained, told without looking at any input."""
    if "://" in experiment.output:
        return False
    needed = {experiment.source, *experiment.witnesses, *experiment.targets}
    trained = os.path.join(experiment.output, experiment.name, "trained")
    within = [unwrapped(experiment.models, name).name for name in needed]
    cards = [os.path.join(trained, name, "card.json") for name in within if experiment.models[name].train]
    return not all(map(os.path.isfile, cards))


def _workers(blueprint: Blueprint, stages: Sequence[str]) -> dict[str, Worker]:
    """What each worker of a stage takes of the cluster. Raises InputError where it cannot work there."""
    from pipelines.stages.align import check_room

    as_crafting = {"reasons": "craft"}  # for these, too, are gradients of the surrogates
    workers = {stage: worker_of(blueprint.experiment.compute, as_crafting.get(stage, stage)) for stage in stages}
    if "align" in workers:
        check_room(blueprint, workers["align"])
        if blueprint.missing("align"):
            check_cache(blueprint.experiment, may_work_here(workers["align"]))
    return workers


def _make(blueprint: Blueprint, workers: Mapping[str, Worker], progress: Progress) -> dict[str, int]:
    """Does what is missing of the stages; returns how much each made. The stages import torch, and only they do."""
    from pipelines.stages.align import make_networks
    from pipelines.stages.craft import craft_all
    from pipelines.stages.evaluate import evaluate_all
    from pipelines.stages.reasons import measure_all
    from pipelines.stages.take_in import take_in_all

    makers = {"align": make_networks, "craft": craft_all, "evaluate": evaluate_all, "reasons": measure_all}
    made = {}
    for stage, worker in workers.items():
        blueprint.check_finished(STAGES[: STAGES.index(stage)])
        taken_in = take_in_all(blueprint, progress) if stage == "craft" else 0
        made[stage] = makers[stage](blueprint, worker, progress) + taken_in
    return made
