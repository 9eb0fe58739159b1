"""ASHA for trials whose workers are Ray Train's: the hopeless are asked to end, not ended from outside.

Tune can end a trial's own process only; Ray Train's workers would outlive it, and hold what the next trial waits for.
"""

from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from pipelines.storage.store import Store
from pipelines.sweep.trial import stop_note


class AskingASHA(ASHAScheduler):  # type: ignore[misc]
    """Leaves a note for a trial that it would stop; the trial ends by itself when its workers have read it.

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
