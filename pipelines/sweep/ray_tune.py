"""Ray Tune: runs the trials that a study asks for, and resumes where an earlier run of it was interrupted."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, NamedTuple

from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from align_core.errors import reason_of
from pipelines.compute.device_failures import LeftAlone
from pipelines.compute.kept_gpus import KEPT
from pipelines.environment import set_defaults
from pipelines.failure import ONCE_MENDED, RunFailed
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.search import NO_MORE, DistinctSearch
from pipelines.sweep.settings import Settings
from pipelines.sweep.study import TRIAL_CPUS, Study
from pipelines.sweep.trial import MEASUREMENTS, Sweep, run_trial, stop_note

_RUNS = ".tune"
_RETRIES = 2


class TrialEnd(NamedTuple):
    """How Ray Tune ended a trial: by an error, or because the scheduler had it stopped, or as one that is over.

    That a trial was given a GPU which is to be left alone is no error of the trial.
    """

    settings: Settings
    error: str
    is_stopped: bool


def run_tune(
    study: Study, sweep: Sweep, concurrent: int, say: Callable[[str], None], watch: Callable[[], None]
) -> list[TrialEnd]:
    """Runs Ray Tune until no trial is left, from its earlier state where there is one.

    Args:
        study, sweep: what is asked for, and what every trial needs to know.
        concurrent: the number of trials at once.
        say: is given a line where the earlier state cannot be used. watch: is called about once a second.

    Where a GPU of trials with one worker has failed twice, it ends with the trials that have begun, as Ray Tune would
    go on giving that GPU to trials.

    Returns the end of every trial. Ray Tune also counts trials as over that were at work when an earlier run was ended
    by a signal, so that only the trial's record says whether it is. Raises RunFailed.
    """
    set_defaults("tune")
    NO_MORE.clear()
    tuner = _tuner(study, sweep, concurrent, say)
    future: Future[Any] = Future()

    def fit() -> None:
        try:
            future.set_result(tuner.fit())
        except BaseException as problem:
            future.set_exception(problem)

    # Ray Tune runs in a daemon thread, so that the process can end at once after Ctrl-C.
    Thread(target=fit, daemon=True).start()
    try:
        while not future.done():
            time.sleep(1)
            watch()
            # Of trials with several workers, each keeps such GPUs from its own (`trial._align_on_ray_train`).
            if study.entry.align.workers == 1 and KEPT.misses(study.blueprint.store):
                NO_MORE.set()
        results = future.result()
        watch()
    except Exception as problem:
        raise RunFailed(f"the sweep was interrupted: {problem}. {ONCE_MENDED}") from problem
    return [_end_of(result, study.blueprint.store) for result in results]


def _end_of(result: Any, store: Store) -> TrialEnd:
    note = stop_note(str((result.metrics or {}).get("trial_id")))
    is_stopped = store.exists(note)
    store.delete(note)
    error = "" if result.error is None else reason_of(result.error)
    is_elsewhere = LeftAlone.__name__ in str(result.error)  # Ray Tune may hand on no more than the text
    return TrialEnd(result.config["settings"], "" if is_elsewhere else error, is_stopped)


def _tuner(study: Study, sweep: Sweep, concurrent: int, say: Callable[[str], None]) -> Any:
    store, options, worker = study.blueprint.store, study.options, sweep.worker
    has_one_worker = study.entry.align.workers == 1
    needs = {"cpu": worker.cpus, "gpu": worker.gpus, **worker.resources} if has_one_worker else {"cpu": TRIAL_CPUS}
    # Ray Tune's state includes how many trials run at once and what each takes, so a change of these starts a new run.
    name = f"{study.name}-{fingerprint_of([study.fingerprint, concurrent, needs])}"
    delete_runs(study, keep=name)
    folder, filesystem = store.path(f"{_RUNS}/{name}"), store.filesystem
    trainable = ray_tune.with_resources(ray_tune.with_parameters(run_trial, sweep=sweep), needs)
    if ray_tune.Tuner.can_restore(folder, filesystem):
        try:
            return ray_tune.Tuner.restore(
                folder, trainable, resume_unfinished=True, restart_errored=True, storage_filesystem=filesystem
            )
        except Exception as problem:  # a killed run or another version of Witness can leave anything here
            say(f"Ray Tune's state cannot be read ({problem}); trials that have ended are kept, the others start anew")
            delete_runs(study)
    scheduler = NotingASHA(store, MEASUREMENTS, asks=not has_one_worker) if options.scheduler == "asha" else None
    searcher = DistinctSearch(
        study.space, options.searcher, study.blueprint.experiment.seed, study.samples, metric="score"
    )
    return ray_tune.Tuner(
        trainable,
        tune_config=ray_tune.TuneConfig(
            num_samples=study.samples,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=ray_tune.RunConfig(
            name=name,
            storage_path=store.path(_RUNS),
            storage_filesystem=store.filesystem,
            failure_config=ray_tune.FailureConfig(max_failures=_RETRIES),
            checkpoint_config=ray_tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )


def _trial_folder(trial: Any) -> str:
    return str(trial.trial_id)


def delete_runs(study: Study, keep: str | None = None) -> None:
    """Deletes what Ray Tune left of sweeps of this name that are over or were given up, except for the run `keep`."""
    store, start = study.blueprint.store, f"{study.name}-"
    runs = {folder.split("/")[1] for folder in store.listing(_RUNS) if "/" in folder}
    for run in runs:
        if run.startswith(start) and len(run) == len(start) + 16 and run != keep:
            store.delete_folder(f"{_RUNS}/{run}")


class NotingASHA(ASHAScheduler):  # type: ignore[misc]
    """ASHA that leaves a note for every trial that it stops, since Ray Tune does not keep why a trial was ended.

    Args:
        store: where the notes are left. measurements: how often a trial reports if it comes to its end.
        asks: whether a trial ends by itself once it has read the note. Ray Tune can end only the trial's own process:
            Ray Train's workers would outlive it and hold the resources that the next trial waits for.
    """

    def __init__(self, store: Store, measurements: int, asks: bool) -> None:
        super().__init__(metric="gain", mode="max", max_t=measurements, reduction_factor=2, stop_last_trials=not asks)
        self._store, self._measurements, self._asks = store, measurements, asks

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Leaves a note where ASHA stops the trial before its end. Ray Tune is told to continue where the note asks."""
        action = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP and result["training_iteration"] < self._measurements:
            self._store.write_json(stop_note(trial.trial_id), {"gain": result["gain"]})
        return str(TrialScheduler.CONTINUE if self._asks else action)
