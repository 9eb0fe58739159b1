"""A run from the experiment file to the report: whatever of it is missing, and nothing that is there."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from align_core.errors import InputError
from pipelines.compute.cluster import Worker, connected, worker_of
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.factories import look_in
from pipelines.experiment.written import as_yaml
from pipelines.failure import RunFailed
from pipelines.progress import Progress, Spent
from pipelines.report.page import Report, make_report
from pipelines.report.to_mlflow import log_report
from pipelines.stages.align import align, check_room
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.craft import craft_all
from pipelines.stages.evaluate import evaluate_all
from pipelines.stages.inspect import inspect
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Store
from pipelines.storage.versions import versions
from pipelines.tracking.runs import tracking_uri

STAGES = ("align", "craft", "evaluate", "report")


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Args:
        experiment_file: the experiment. overrides: `key.path=value`. output: instead of the file's.
        address: of a Ray cluster. quiet: plain lines even on a terminal.
    """

    experiment_file: Path
    overrides: Sequence[str] = ()
    output: str | None = None
    address: str | None = None
    quiet: bool = False

    def experiment(self) -> Experiment:
        """The experiment, checked. Its factories can be imported from then on. Raises InputError."""
        experiment = load_experiment(self.experiment_file, self.overrides, self.output)
        look_in(str(experiment.factories))
        return experiment


@dataclass
class Result:
    """What a run did and where it lies. `made` counts networks and chunks by stage, `spent` tells their time."""

    location: str
    tracking: str
    made: dict[str, int] = field(default_factory=dict)
    report: Report | None = None
    logged: bool = False
    spent: list[Spent] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        report = {} if self.report is None else {"report": f"{self.location}/report", "means": self.report.means()}
        return {
            "location": self.location,
            "tracking": self.tracking,
            "made": self.made,
            "logged": self.logged,
            "spent": [asdict(spent) for spent in self.spent],
            **report,
        }


def make_blueprint(request: Request, to_write: bool = True) -> Blueprint:
    """Experiment, inputs and, unless only to be looked at, store: checked, and nothing written. Raises InputError."""
    return _make_blueprint(request, to_write, Progress(request.quiet))


def _make_blueprint(request: Request, to_write: bool, progress: Progress) -> Blueprint:
    experiment = request.experiment()
    try:
        tracking_uri(experiment)
        if to_write:
            Store(experiment.output, experiment.name).check_writable()
        return _blueprint_of(experiment, progress)
    except InputError as problem:
        raise InputError(f"{request.experiment_file}: {problem}") from problem


def _blueprint_of(experiment: Experiment, progress: Progress) -> Blueprint:
    store = Store(experiment.output, experiment.name)
    return Blueprint(experiment, inspect(experiment, store, progress), store)


def run(request: Request, stages: Sequence[str] = STAGES, log: bool = False) -> Result:
    """Does what is missing of `stages`, and reports. `log` tells MLflow even what it was told before.

    Raises InputError (nothing was written), Busy, or RunFailed (what is finished is kept).
    """
    progress = Progress(request.quiet)
    return _run(_make_blueprint(request, True, progress), request, stages, log, progress)


def run_experiment(experiment: Experiment, request: Request) -> Result:
    """The same for an experiment that is no file yet; address and manner are those of `request`."""
    progress = Progress(request.quiet)
    return _run(_blueprint_of(experiment, progress), request, STAGES, log=False, progress=progress)


def _run(blueprint: Blueprint, request: Request, stages: Sequence[str], log: bool, progress: Progress) -> Result:
    experiment, store = blueprint.experiment, blueprint.store
    result = Result(store.location, without_credentials(tracking_uri(experiment)))
    result.spent = progress.spent
    work = [stage for stage in stages if stage != "report"]
    with ExitStack() as stack:
        workers = None
        if work and _is_missing(blueprint, work):
            # Whatever the cluster cannot do is found before anything is written.
            stack.enter_context(connected(request.address, experiment))
            workers = {stage: worker_of(experiment.compute, stage) for stage in work}
            if "align" in workers:
                check_room(blueprint, workers["align"])
        stack.enter_context(store.locked())
        if workers is not None:
            stack.enter_context(progress.logged(store))
        blueprint.refresh()
        blueprint.inspected.save(store)
        _write_resolved(blueprint)
        for role, manifest in blueprint.inspected.manifests.items():
            if manifest.unreadable:
                progress.say(f"data.{role}: {len(manifest.unreadable)} unreadable images are left out")
        if workers is not None:
            result.made = _make(blueprint, workers, progress)
            _write_resolved(blueprint)
        elif work:
            progress.say("everything is there already: nothing to compute")
        if "report" in stages:
            check_complete(blueprint)
            result.report, made = make_report(blueprint)
            result.made["report"] = int(made)
            result.logged = log_report(blueprint, result.report, progress.say, again=log)
    return result


def _make(blueprint: Blueprint, workers: Mapping[str, Worker], progress: Progress) -> dict[str, int]:
    made = {}
    for stage, worker in workers.items():
        if stage == "align":
            made[stage] = align(blueprint, worker, progress)
            continue
        check_complete(blueprint, STAGES[: STAGES.index(stage)])
        made[stage] = (craft_all if stage == "craft" else evaluate_all)(blueprint, worker, progress)
    return made


def _is_missing(blueprint: Blueprint, stages: Sequence[str]) -> bool:
    return any(missing_of(blueprint, stage) for stage in stages)


def missing_of(blueprint: Blueprint, stage: str) -> list[str]:
    """What a stage has still to make: networks by name, tables by folder."""
    wanted = [s.name for s in blueprint.surrogates if s.align is not None] + blueprint.trained_for_run
    networks = [name for name in wanted if name not in blueprint.networks or blueprint.networks[name].digest is None]
    if stage == "align" or networks:
        return networks
    listing = blueprint.store.listing()
    if stage == "craft":
        tables = [
            blueprint.adversarial(s, attack) for s in blueprint.surrogates for attack in blueprint.experiment.attacks
        ]
    else:
        tables = [cell.table for cell in blueprint.cells()] + [table for _, table in blueprint.clean().values()]
    return [table.folder for table in tables if not table.is_finished(listing) or table.done_chunks(listing)]


def check_complete(blueprint: Blueprint, stages: Sequence[str] = STAGES[:3]) -> None:
    """Raises RunFailed, naming what is missing, unless these stages are finished."""
    for stage in stages:
        missing = missing_of(blueprint, stage)
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise RunFailed(
                f"`witness {stage}` comes first: not there yet: {', '.join(missing[:5])}{more}; `witness run` does all"
            )


def _write_resolved(blueprint: Blueprint) -> None:
    """experiment.yaml: every setting as it took effect; as comments, versions and hashes of weights and images."""
    found = {
        "weights": {name: network.digest for name, network in blueprint.networks.items()},
        "images": {role: manifest.digest for role, manifest in blueprint.inspected.manifests.items()},
        "versions": versions(),
    }
    said = "".join(f"# {line}\n" for line in yaml.safe_dump(found, sort_keys=False).splitlines())
    text = f"{as_yaml(blueprint.experiment)}\n# What was found, and what found it:\n{said}".encode()
    if not blueprint.store.exists("experiment.yaml") or blueprint.store.read("experiment.yaml") != text:
        blueprint.store.write("experiment.yaml", text)
