"""One trial of a sweep: makes the surrogate with the settings drawn, measures it on the way, and records it all.

A trial with one worker trains in its own process, which Ray Tune reuses for the next trial, so that models and images
are loaded once. A trial with several workers goes through Ray Train.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn

from align_core.alignment import NonFiniteLoss
from align_core.model_config import Combine
from align_core.models import Classifier, Ensemble, copy_of
from pipelines.compute.cluster import Worker
from pipelines.compute.fine_tune import FineTune, Trainer
from pipelines.compute.ray_train import (
    RUNS,
    beside_failed_gpus,
    delete_run,
    guarded,
    raising_the_cause,
    trainer_arguments,
    worker_trainer,
)
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.entry import Entry, settled
from pipelines.sweep.record import (
    STOPPED,
    Record,
    StoredMeasurement,
    read_record,
    record_path,
    trial_fingerprint,
    write_record,
)
from pipelines.sweep.settings import Settings
from pipelines.sweep.validation import Baseline, ValidationSetup, Validator

# A trial is measured this many times, after equal parts of its alignment; only the last time on all validation images.
MEASUREMENTS = 4
# The score that the searcher is told when the loss was not finite. Trials that cost clean accuracy score between -100
# and -200, so this is worse than any of them.
_NON_FINITE_SCORE = -1_000.0
_STOP_POLL_S = 0.5


@dataclass(frozen=True)
class Sweep:
    """Everything that a trial needs to know. It is sent to every trial.

    Args:
        store: where the records are, in `folder`.
        entry: the surrogate whose settings they are laid over.
        base: its fine-tune with the settings of its entry.
        inputs: what all trials of the sweep have in common. identities: what identifies each witness's weights.
        validation, baseline: what the trials are measured on, and what they are compared with.
        max_clean_drop: how many points of clean accuracy a surrogate may cost.
        worker: the resources of one of its workers.
        is_scheduled: whether a scheduler may end a trial early.
    """

    store: Store
    folder: str
    entry: Entry
    base: FineTune
    inputs: Mapping[str, Any]
    identities: Mapping[str, Any]
    validation: ValidationSetup
    baseline: Baseline
    max_clean_drop: float
    worker: Worker
    is_scheduled: bool

    def fingerprint(self, settings: Settings) -> str:
        """Returns the fingerprint of everything that determines the result of the trial with these settings."""
        return trial_fingerprint(self.entry, self.inputs, self.identities, settings)

    def job(self, settings: Settings) -> FineTune:
        """Returns the fine-tune of the trial with these settings."""
        align, named = settled(self.entry, settings)
        witnesses = tuple(self.entry.networks[name] for name in named)
        name = f"trial-{self.fingerprint(settings)}"
        return dataclasses.replace(self.base, name=name, align=align, witnesses=witnesses, progress_file=None)

    def score(self, gain: float, clean_change: float) -> float:
        """Returns what the searcher maximises.

        It is the gain where clean accuracy is kept. Elsewhere it lies below every possible gain, and the lower the more
        clean accuracy is lost.

        Args:
            gain: in points, from -100 to 100. clean_change: in points, negative where clean accuracy is lost.
        """
        excess = -clean_change - self.max_clean_drop
        return gain if excess <= 0 else -100.0 - excess


def stop_note(trial_id: str) -> str:
    """Returns the path, in the store, of the note that asks a trial to end; `trial_id` is Ray Tune's."""
    return f"{RUNS}/stop-{trial_id}.json"


def run_trial(config: dict[str, Any], sweep: Sweep) -> None:
    """Runs one trial; Ray Tune calls it with the settings in `config["settings"]`.

    Where the record says that these settings came to an end before, nothing is computed: Tune is told what the record
    holds. A device error ends the process, and Tune tries the trial again in another. Raises LeftAlone where this
    process was given a GPU that is to be left alone.
    """
    from ray import tune

    settings: Settings = config["settings"]
    known = read_record(sweep.store, record_path(sweep.folder, sweep.fingerprint(settings)))
    # A trial that was stopped runs again, since this sweep's scheduler may let it come to its end.
    if known is not None and known.is_final and known.status != "stopped":
        # All measurements are reported, as for a trial that runs, because the scheduler compares them step by step.
        for measurement in known.measurements if known.status == "done" else [StoredMeasurement()]:
            tune.report(_metrics(sweep, known, measurement))
        return
    job = sweep.job(settings)
    if job.align.workers > 1:
        _align_on_ray_train(job, sweep, settings)
        return
    with guarded(sweep.store, job.name):
        _align_here(job, sweep, settings)


def _align_here(job: FineTune, sweep: Sweep, settings: Settings) -> None:
    """Runs a trial with one worker, in this process."""
    from ray import tune

    trainer = Trainer(job, sweep.worker.device, networks=_validator_of(sweep).networks)
    latest = tune.get_checkpoint()
    if latest is not None:
        with latest.as_directory() as folder:
            trainer.restore(Path(folder))

    def report(metrics: dict[str, Any], checkpoint: Path) -> None:
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(checkpoint)))

    failed = _align_and_measure(trainer, sweep, settings, report)
    if failed is not None:
        tune.report(_metrics(sweep, failed, {}))


def _align_and_measure(
    trainer: Trainer,
    sweep: Sweep,
    settings: Settings,
    report: Callable[[dict[str, Any], Path], None],
    is_to_stop: Callable[[], bool] = lambda: False,
) -> Record | None:
    """Aligns from the trainer's current step to the end, or until `is_to_stop` says so.

    Every measurement is written to the record and then given to `report`, with a checkpoint of the training. Returns
    the record of a trial whose loss or logits were not finite, which the caller has to report; None otherwise.
    """
    validator, path = _validator_of(sweep), record_path(sweep.folder, sweep.fingerprint(settings))
    total, resumed = len(trainer.batches), trainer.alignment.step_number
    known = read_record(sweep.store, path)
    earlier = [] if known is None else [each for each in known.measurements if each["step"] <= resumed]
    spent = earlier[-1]["seconds"] if earlier else 0.0
    record, start = Record(settings, "running", earlier, trainer.curve), time.monotonic()
    surrogate = _Kept(trainer, sweep.entry.surrogate.combine)

    def measure() -> None:
        step = trainer.alignment.step_number
        everything = range(len(sweep.validation.image_ids))
        positions = everything if step == total else sweep.validation.interim_positions
        measurement = validator.measure(surrogate.now(), sweep.baseline, positions)
        record.seconds = round(spent + time.monotonic() - start, 2)
        added = {"step": step, "timestamp": time.time(), "seconds": record.seconds}
        record.measurements.append(StoredMeasurement(**asdict(measurement), **added))  # type: ignore[typeddict-item]
        if step == total:
            record.status = "done"
        write_record(sweep.store, path, record)
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(Path(folder))
            report(_metrics(sweep, record, record.last), Path(folder))

    # Of several workers, only the first measures: where it alone stopped, the others would wait for it for ever.
    failures = FloatingPointError if trainer.world == 1 else NonFiniteLoss
    try:
        trainer.run(measure, _measured_steps(total), is_to_stop)
    except failures as problem:
        record.status, record.reason = "failed", str(problem)
    if record.status == "done":
        return None
    if trainer.alignment.step_number < total and record.status == "running":
        record.status, record.reason = "stopped", STOPPED
    record.seconds = round(spent + time.monotonic() - start, 2)
    write_record(sweep.store, path, record)
    return record if record.status == "failed" else None


class _Kept:
    """The surrogate as it stands: copies of the networks that would be kept if the training ended here.

    Copies are measured, in eval mode, so that measuring does not change the network that is being trained.

    Args:
        trainer: of the surrogate. combine: what attacks go by where it keeps several networks.
    """

    def __init__(self, trainer: Trainer, combine: Combine) -> None:
        source = trainer.alignment.source
        assert isinstance(source, Classifier)
        self._trainer, self._combine, self._copies = trainer, combine, [_frozen_copy(source)]

    def now(self) -> nn.Module:
        """One network, or an ensemble of several. It is changed by the next call."""
        states = self._trainer.networks()
        self._copies += [_frozen_copy(self._copies[0]) for _ in states[len(self._copies) :]]
        networks = self._copies[: len(states)]
        for network, state in zip(networks, states, strict=True):
            network.load_state_dict(state)
        return networks[0] if len(networks) == 1 else Ensemble(networks, self._combine)


def _frozen_copy(network: Classifier) -> Classifier:
    return copy_of(network).eval().requires_grad_(False)


def _measured_steps(total: int) -> set[int]:
    """Returns the numbers of the steps after which a fine-tune of `total` steps is measured."""
    return {-(-total * part // MEASUREMENTS) for part in range(1, MEASUREMENTS + 1)}


def _metrics(sweep: Sweep, record: Record, measurement: StoredMeasurement) -> dict[str, Any]:
    """Returns what Tune, its scheduler and the searcher are told of one measurement, or of a failure without any."""
    if record.status == "failed":
        return {"gain": -100.0, "score": _NON_FINITE_SCORE, "step": -1}
    score = sweep.score(measurement["gain"], measurement["clean_change"])
    return {"gain": measurement["gain"], "score": score, "step": measurement["step"]}


_validators: dict[str, Validator] = {}


def _validator_of(sweep: Sweep) -> Validator:
    """Returns this process's validator, which is kept from trial to trial because Ray Tune reuses its actors."""
    fingerprint = fingerprint_of(sweep.inputs)
    if fingerprint not in _validators:
        _validators.clear()
        _validators[fingerprint] = Validator(
            sweep.validation, sweep.base.loader, sweep.worker.device, sweep.worker.threads
        )
    return _validators[fingerprint]


def measure_baseline(validation: ValidationSetup, base: FineTune, worker: Worker) -> Baseline:
    """Measures the source as it is on the validation images. It runs as a Ray task before the first trial.

    Raises LeftAlone where it was given a GPU that is to be left alone, and ValueError where the source and the targets
    have no correctly classified image in common.
    """
    with guarded(base.loader.store, "measure the source"):
        return Validator(validation, base.loader, worker.device, worker.threads).baseline()


def _align_on_ray_train(job: FineTune, sweep: Sweep, settings: Settings) -> None:
    """Runs a trial with several workers: Ray Train's callback passes every measurement on to Ray Tune.

    A GPU that failed twice is kept from its workers by this process, as long as it lives.
    """
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    note = stop_note(tune.get_context().get_trial_id())
    sweep.store.delete(note)  # a run that was killed may have left one
    loop = {"job": job, "sweep": sweep, "settings": settings, "note": note}

    def fit() -> None:
        arguments = trainer_arguments(sweep.store, job.name, job.align.workers, sweep.worker, [TuneReportCallback()])
        with raising_the_cause():
            TorchTrainer(_train_worker, train_loop_config=loop, **arguments).fit()

    beside_failed_gpus(fit, sweep.store, sweep.worker, needed=job.align.workers)
    delete_run(sweep.store, job.name)
    sweep.store.delete(note)


def _train_worker(config: dict[str, Any]) -> None:
    """Runs in each of the Ray Train workers of a trial."""
    with guarded(config["sweep"].store, config["job"].name):
        _train(config)


def _train(config: dict[str, Any]) -> None:
    import ray.train

    sweep, settings = config["sweep"], config["settings"]
    trainer = worker_trainer(config["job"])
    is_to_stop = _stop_poll(sweep.store, config["note"], trainer) if sweep.is_scheduled else lambda: False
    if trainer.rank == 0:

        def report(metrics: dict[str, Any], checkpoint: Path) -> None:
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(checkpoint)))

        failed = _align_and_measure(trainer, sweep, settings, report, is_to_stop)
        if failed is not None:
            ray.train.report(_metrics(sweep, failed, {}))
        return
    # Ray Train wants every worker to report as often as the first one, which alone measures.
    try:
        trainer.run(lambda: ray.train.report({}), _measured_steps(len(trainer.batches)), is_to_stop)
    except NonFiniteLoss:  # all workers raise it at the same step, and the first one records it
        ray.train.report({})


def _stop_poll(store: Store, note: str, trainer: Trainer) -> Callable[[], bool]:
    """Returns a function that says whether the scheduler's note has been left.

    The first worker polls the store, and tells the others at every step, so that all of them end at the same step.
    """
    polled = 0.0

    def is_to_stop() -> bool:
        nonlocal polled
        is_there_1 = torch.zeros(1, device=trainer.device)
        if trainer.rank == 0 and time.monotonic() - polled > _STOP_POLL_S:
            polled = time.monotonic()
            is_there_1.fill_(store.exists(note))
        torch.distributed.broadcast(is_there_1, 0)
        return bool(is_there_1.item())

    return is_to_stop
