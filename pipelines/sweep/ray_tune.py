"""Ray Tune: runs the trials that a study asks for, and goes on where a run of it was broken off."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from pipelines.failure import RunFailed
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.space import Settings
from pipelines.sweep.study import TRIAL_CPUS, Study
from pipelines.sweep.trial import LOOKS, Sweep, run_trial, stop_note

_RUNS = ".tune"
_RETRIES = 2


def run_tune(
    study: Study, sweep: Sweep, concurrent: int, say: Callable[[str], None], watch: Callable[[], None]
) -> list[tuple[Settings, str]]:
    """Ray Tune from where it was; (settings, reason of failure) of every trial. Raises RunFailed."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints tables on standard output, always
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # records and MLflow hold what they would write
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    tuner = _tuner(study, sweep, concurrent, say)
    future: Future[Any] = Future()

    def fit() -> None:
        try:
            future.set_result(tuner.fit())
        except BaseException as problem:
            future.set_exception(problem)

    # A daemon: nobody waits for it after Ctrl-C.
    Thread(target=fit, daemon=True).start()
    try:
        while not future.done():
            time.sleep(1)
            watch()
        results = future.result()
        watch()
    except Exception as problem:
        raise RunFailed(
            f"the sweep broke off: {problem}. Trials that ended are kept; the same command goes on"
        ) from problem
    return [(result.config["settings"], _reason(result.error)) for result in results]


def _reason(error: Exception | None) -> str:
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _tuner(study: Study, sweep: Sweep, concurrent: int, say: Callable[[str], None]) -> Any:
    from pipelines.sweep.search import DistinctSearch

    store, options, worker = study.blueprint.store, study.options, sweep.worker
    is_alone = study.blueprint.experiment.align.workers == 1
    needs = {"cpu": worker.cpus, "gpu": worker.gpus, **worker.resources} if is_alone else {"cpu": TRIAL_CPUS}
    # Tune's own state holds how many run at once and what each takes: where that has changed, it begins anew.
    name = f"{study.space.name}-{fingerprint_of([study.fingerprint, concurrent, needs])}"
    delete_runs(study, keep=name)
    folder, filesystem = store.path(f"{_RUNS}/{name}"), store.filesystem
    trainable = ray_tune.with_resources(ray_tune.with_parameters(run_trial, sweep=sweep), needs)
    if ray_tune.Tuner.can_restore(folder, filesystem):
        try:
            return ray_tune.Tuner.restore(
                folder, trainable, resume_unfinished=True, restart_errored=True, storage_filesystem=filesystem
            )
        except Exception as problem:  # whatever Ray raises on a state that a killed run left half written
            say(f"Ray Tune's own state cannot be read ({problem}); trials that ended are kept, the others begin anew")
            delete_runs(study)
    scheduler: Any = None
    if options.scheduler == "asha" and is_alone:
        scheduler = ASHAScheduler(metric="gain", mode="max", max_t=LOOKS, reduction_factor=2)
    elif options.scheduler == "asha":
        scheduler = AskingASHA(store, LOOKS)
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
    """What Ray Tune left of this space's sweeps: those that are over, or were given up; all but `keep`."""
    store, start = study.blueprint.store, f"{study.space.name}-"
    runs = {folder.split("/")[1] for folder in store.listing(_RUNS) if "/" in folder}
    for run in runs:
        if run.startswith(start) and len(run) == len(start) + 16 and run != keep:
            store.delete_folder(f"{_RUNS}/{run}")


class AskingASHA(ASHAScheduler):  # type: ignore[misc]
    """ASHA for trials whose workers are Ray Train's: it leaves a note for a trial that it would stop.

    Ray Tune can end a trial's own process only. Ray Train's workers would outlive it and hold the resources that the
    next trial waits for, so the trial ends by itself once its workers have read the note.

    Args:
        store: where the notes are left. looks: reports of a trial that comes to its end.
    """

    def __init__(self, store: Store, looks: int) -> None:
        super().__init__(metric="gain", mode="max", max_t=looks, reduction_factor=2, stop_last_trials=False)
        self._store, self._looks = store, looks

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tune's answer is always to go on."""
        action = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP and result["training_iteration"] < self._looks:
            self._store.write_json(stop_note(trial.trial_id), {"gain": result["gain"]})
        return str(TrialScheduler.CONTINUE)
