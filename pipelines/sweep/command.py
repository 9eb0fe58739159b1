"""The command `witness tune`: chooses a surrogate's settings on validation images, then measures the choice, once, on
the test images.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.compute.cluster import Worker, connected, may_work_here, room_beside_failed_gpus, worker_of
from pipelines.compute.kept_gpus import KEPT, naming_failed_devices
from pipelines.experiment.written import as_yaml
from pipelines.failure import RunFailed
from pipelines.progress import Progress
from pipelines.report.rows import ContrastRow
from pipelines.run.command import RunResult, run
from pipelines.run.request import Request, naming_its_file, open_blueprint
from pipelines.stages.align import check_room, make_named
from pipelines.stages.cache_folder import check_cache
from pipelines.stages.notes import say_notes
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import fingerprint_of
from pipelines.sweep.best import Best, best_experiment
from pipelines.sweep.choice import TrialRow, as_csv, chosen, keeping, said_choice, trial_rows
from pipelines.sweep.record import STOPPED, Record, read_record, record_path, write_record
from pipelines.sweep.settings import Settings
from pipelines.sweep.study import Options, Study, check_sweep
from pipelines.sweep.to_mlflow import log_sweep, sweep_shown
from pipelines.sweep.trial import Sweep
from pipelines.sweep.watch import Watch
from pipelines.tracking.runs import tracking_uri

if TYPE_CHECKING:
    from pipelines.sweep.ray_tune import TrialEnd

# Ray Tune may end, or may have been restored, without a trial for every setting; then it starts once more.
_ATTEMPTS = 2


@dataclass
class SweepResult:
    """What a sweep found, and where it is.

    Attributes:
        location: the sweep's folder. tracking: the URI of the MLflow server; both without credentials.
        surrogate: whose settings were searched. keys: the searched keys. rows: the rows of trials.csv.
        best: the chosen settings; None where no trial kept clean accuracy. chosen: their row of trials.csv.
        kept: how many trials that came to their end lost at most `max_clean_drop` points of clean accuracy.
        test: the run of best.yaml on the test images; None where nothing was chosen or the run was not asked for.
        contrast: the chosen settings against those of the surrogate's entry, for each attack and test target.
        logged: whether MLflow holds all of the sweep.
    """

    location: str
    tracking: str
    surrogate: str
    keys: list[str]
    rows: list[TrialRow]
    kept: int
    max_clean_drop: float
    best: Settings | None = None
    chosen: TrialRow | None = None
    test: RunResult | None = None
    contrast: list[ContrastRow] = field(default_factory=list)
    logged: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """The number of trials with each status, such as `{"done": 7, "failed": 1}`."""
        found = [row["status"] for row in self.rows]
        return {status: found.count(status) for status in dict.fromkeys(found)}

    def lines(self) -> list[str]:
        """What was chosen, and from how many trials."""
        drop, finished = self.max_clean_drop, self.counts.get("done", 0)
        said = [] if self.chosen is None else [f"chosen: {said_choice(self.chosen, self.keys, finished)}"]
        kept = f"{self.kept} of {finished} trials that came to their end keep clean accuracy within {drop:g} points"
        return [*said, f"{kept} of the source's (--max-clean-drop)"]

    def as_json(self) -> dict[str, Any]:
        """Returns the object that `witness tune --json` prints."""
        test = None if self.test is None else self.test.as_json()
        return {
            "location": self.location,
            "tracking": self.tracking,
            "surrogate": self.surrogate,
            "trials": self.counts,
            "best": self.best,
            "chosen": self.chosen,
            "kept_clean_accuracy": self.kept,
            "test": test,
            "best_against_default": self.contrast,
            "logged": self.logged,
        }


def tune_experiment(request: Request, options: Options) -> SweepResult:
    """Runs a sweep, or resumes one that was interrupted, then runs best.yaml on the test targets.

    Raises InputError (nothing was written), Busy, or RunFailed (trials that have ended are kept).
    """
    study = _study(request, options)
    blueprint = study.blueprint
    with ExitStack() as stack:
        result = _search(study, request, stack)
        if result.best is None:
            return result
        # The test images are used for the first time here, after everything has been chosen.
        best = best_experiment(blueprint.experiment, study.entry, study.space.name, result.best)
        study.copy_known(best.experiment.name)
        result.test = run(replace(request, source=best.experiment, overrides=(), output=None, rehash=False))
        study.keep_made(best.experiment.name)
        result.contrast = _against_default(result.test, best)
        return result


def search_settings(request: Request, options: Options) -> SweepResult:
    """Runs or resumes the sweep alone: trials and choice, without using the test images.

    Raises the same as `tune_experiment`.
    """
    with ExitStack() as stack:
        return _search(_study(request, options), request, stack)


def _study(request: Request, options: Options) -> Study:
    """The sweep, of which the experiment and the flags are checked before images and models are looked at."""
    experiment = request.experiment()
    check_sweep(experiment, options)
    return Study(open_blueprint(request, to_write=True, experiment=experiment), options)


def _search(study: Study, request: Request, stack: ExitStack) -> SweepResult:
    """Runs the trials and chooses. The connection to Ray, if one was needed, stays open on the stack for the caller."""
    progress, blueprint, store = Progress(request.quiet), study.blueprint, study.blueprint.store
    say_notes(blueprint, progress)
    is_over = study.is_over()
    if not is_over:
        say_at_once = partial(progress.say, at_once=True)
        stack.enter_context(connected(request.address, blueprint.experiment, say_at_once, request.dashboard))
        worker = worker_of(blueprint.experiment.compute)
        with naming_its_file(request):
            check_room(blueprint, worker, study.needed)
            check_cache(blueprint.experiment, may_work_here(worker))
        concurrent = study.concurrent(worker)
    with store.locked():
        blueprint.refresh()
        blueprint.inspected.save(store)
        if is_over:
            progress.say(f"sweep {study.name}: every trial is there already: nothing to compute")
            return _finish(study, progress)
        shown = sweep_shown(blueprint, study.entry, study.space, study.fingerprint)
        with progress.logged(store), naming_failed_devices(store, progress.say), shown:
            make_named(blueprint, study.needed, worker, progress)
            _sweep(study, worker, concurrent, progress)
            return _finish(study, progress)


def _sweep(study: Study, worker: Worker, concurrent: int, progress: Progress) -> None:
    """Runs the trials that are missing and notes the sweep's end in sweep.json once all of them are over."""
    from pipelines.sweep.ray_tune import delete_runs, run_tune

    store = study.blueprint.store
    _set_aside_others(study, progress)
    with progress.stage("measure the source", len(study.blueprint.inspected.manifests["validation"]), "images") as bar:
        sweep = study.sweep(worker)
        bar.set(len(sweep.validation.image_ids))
    attempts = 0
    while attempts < _ATTEMPTS:
        with progress.stage(f"sweep {study.name}", study.samples, "trials") as bar:
            watch = Watch(study, bar)
            ends = run_tune(study, sweep, concurrent, progress.say, watch.look)
            any_lost = _record_ends(study, sweep, ends)
            watch.look()
        drawn = {sweep.fingerprint(end.settings) for end in ends}
        if not any_lost and study.is_complete(drawn):
            delete_runs(study)
            store.write_json(f"{study.folder}/sweep.json", {"fingerprint": study.fingerprint, "trials": sorted(drawn)})
            return
        if KEPT.misses(store):
            workers = study.entry.align.workers
            concurrent = min(concurrent, room_beside_failed_gpus(store, worker, workers) // workers)
            if not KEPT.misses(store):
                delete_runs(study)
                progress.say(
                    "a GPU failed twice and is left alone; the trials that have not ended begin anew elsewhere"
                )
                continue
        if any_lost:
            progress.say("some trials were lost, each with its reason in trials.csv; the same command tries them again")
            return
        delete_runs(study)
        attempts += 1
        progress.say("Ray Tune ended before every trial was there; it starts anew, and trials that have ended are kept")
    progress.say(f"fewer than {study.samples} trials have ended; the same command tries the others again")


def _record_ends(study: Study, sweep: Sweep, ends: Sequence["TrialEnd"]) -> bool:
    """Completes the records of trials whose process ended before it could: it died, or the scheduler stopped it.

    Other trials that are not over stay so, and are run again: a signal ended them. Returns whether a process died.
    """
    store, any_lost = study.blueprint.store, False
    for end in ends:
        path = record_path(study.folder, sweep.fingerprint(end.settings))
        record = read_record(store, path) or Record(end.settings, "running", [], [])
        if record.is_final or not (end.error or end.is_stopped):
            continue
        record.status, record.lost = ("failed", True) if end.error else ("stopped", False)
        record.reason, any_lost = end.error or STOPPED, any_lost or bool(end.error)
        write_record(store, path, record)
    return any_lost


def _set_aside_others(study: Study, progress: Progress) -> None:
    """Moves the trials of other images, targets or attacks, under the same sweep's name, to `.stale`."""
    store, path, fingerprint = study.blueprint.store, f"{study.folder}/inputs.json", fingerprint_of(study.inputs)
    stored = store.read_json(path)
    if stored is not None and stored.get("fingerprint") != fingerprint:
        for folder, names in store.listing(study.folder).items():
            moved = store.set_aside(folder, names)
            progress.say(f"{folder}: made with other settings; moved to {moved}")
    store.write_json(path, {"fingerprint": fingerprint})


def _finish(study: Study, progress: Progress) -> SweepResult:
    """Writes trials.csv, the figure and best.yaml from the records, and logs them.

    Raises RunFailed where no trial came to its end.
    """
    from pipelines.sweep.figure import sweep_figure

    blueprint, store, records = study.blueprint, study.blueprint.store, study.records()
    rows = trial_rows(study.space, records, blueprint.experiment.validation_targets)
    store.write(f"{study.folder}/trials.csv", as_csv(rows))
    result = SweepResult(
        location=f"{store.location}/{study.folder}",
        tracking=without_credentials(tracking_uri(blueprint.experiment)),
        surrogate=study.entry.name,
        keys=study.space.keys,
        rows=rows,
        kept=len(keeping(records, study.options.max_clean_drop)),
        max_clean_drop=study.options.max_clean_drop,
    )
    if all(row["status"] != "done" for row in rows):
        raise RunFailed(f"no trial came to its end; the reasons are in {result.location}/trials.csv")
    best = chosen(records, study.options.max_clean_drop)
    figure = sweep_figure(study.space, records, best, blueprint.experiment.name, study.entry.name)
    store.write(f"{study.folder}/sweep.png", figure)
    if best is not None:
        result.best = records[best].settings
        result.chosen = next(row for row in rows if row["trial"] == best)
        experiment = best_experiment(blueprint.experiment, study.entry, study.space.name, result.best).experiment
        store.write(f"{study.folder}/best.yaml", as_yaml(experiment).encode())
    else:
        store.delete(f"{study.folder}/best.yaml")
        progress.say(
            f"no trial keeps clean accuracy within {study.options.max_clean_drop:g} points (--max-clean-drop): "
            "nothing is chosen, and the test images are not used"
        )
    what = (blueprint, study.entry, study.space, records, study.fingerprint)
    result.logged = log_sweep(*what, files=study.folder, best=best, say=progress.say)
    return result


def _against_default(test: RunResult, best: Best) -> list[ContrastRow]:
    """Returns the chosen settings against those of the surrogate's entry on the test targets.

    contrasts.csv compares every variant with `aligned`, so that where the chosen settings are those of `aligned`, the
    signs are reversed here.
    """
    assert test.report is not None
    rows = test.report.contrasts
    pair = (best.chosen, best.default)
    if found := [row for row in rows if (row["surrogate"], row["baseline"]) == pair]:
        return found
    return [
        {
            **row,
            "surrogate": best.chosen,
            "baseline": best.default,
            "gain": _negative(row["gain"]),
            "gain_low": _negative(row["gain_high"]),
            "gain_high": _negative(row["gain_low"]),
            "gain_both_low": _negative(row["gain_both_high"]),
            "gain_both_high": _negative(row["gain_both_low"]),
        }
        for row in rows
        if (row["baseline"], row["surrogate"]) == pair
    ]


def _negative(value: float | None) -> float | None:
    return None if value is None else 0.0 - value  # `-value` would make -0.0 of 0.0
