"""One trial of a sweep: align with the settings drawn, look at gain and clean accuracy on the way, record it all.

One worker aligns in the trial's own process, which Tune reuses, so that models and images are loaded once; several go
through Ray Train.
"""

import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from align_core.alignment import NonFiniteLoss
from pipelines.compute.cluster import Worker
from pipelines.compute.fine_tune import FineTune, Trainer
from pipelines.compute.ray_train import RUNS, delete_run, trainer_arguments, worker_trainer
from pipelines.experiment.config import Experiment
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.record import STOPPED, Record, read_record, record_path, trial_fingerprint, write_record
from pipelines.sweep.space import Settings, settled
from pipelines.sweep.validation import Baseline, Bench, Validation

# Gain and clean accuracy are looked at after so many equal parts of the alignment, the last of them on all images.
LOOKS = 4
# What a searcher is told of an alignment whose loss was not finite: worse than every clean accuracy lost.
_SPOILT = -1_000.0


@dataclass(frozen=True)
class Sweep:
    """Everything that a trial needs to know; sent to each.

    Args:
        store: where the records lie, in `folder`.
        experiment: over which the settings are laid.
        base: the alignment with the experiment's own settings.
        inputs: what every trial's result depends on beside its settings. identities: of the witnesses.
        validation, baseline: what it is measured on, and against.
        max_clean_drop: points of clean accuracy that an alignment may cost.
        worker: what one of its workers takes.
        is_scheduled: whether a scheduler may end a trial early.
    """

    store: Store
    folder: str
    experiment: Experiment
    base: FineTune
    inputs: Mapping[str, Any]
    identities: Mapping[str, Any]
    validation: Validation
    baseline: Baseline
    max_clean_drop: float
    worker: Worker
    is_scheduled: bool

    def fingerprint(self, settings: Settings) -> str:
        """Of everything that determines a trial's result."""
        return trial_fingerprint(self.experiment, self.inputs, self.identities, settings)

    def job(self, settings: Settings) -> FineTune:
        """The alignment of a trial."""
        align, witnesses = settled(self.experiment, settings)
        name = f"trial-{self.fingerprint(settings)}"
        return dataclasses.replace(self.base, name=name, align=align, witnesses=witnesses, progress_file=None)

    def score(self, gain: float, clean_change: float) -> float:
        """What a searcher is to make large: the gain where clean accuracy is kept, less than any gain elsewhere."""
        excess = -clean_change - self.max_clean_drop
        return gain if excess <= 0 else -100.0 - excess


def stop_note(trial_id: str) -> str:
    """Where in the store a trial, by Tune's id, finds that it is to end."""
    return f"{RUNS}/stop-{trial_id}.json"


def run_trial(config: dict[str, Any], sweep: Sweep) -> None:
    """What Ray Tune runs for each draw of `config["settings"]`. A result that is there already is told again."""
    from ray import tune

    settings: Settings = config["settings"]
    place = record_path(sweep.folder, sweep.fingerprint(settings))
    known = read_record(sweep.store, place)
    if known is not None and known.is_final and known.status != "stopped":  # another scheduler may let it end
        for look in known.looks if known.status == "done" else [{}]:  # as the scheduler was told of the others
            tune.report(_metrics(sweep, known, look))
        return
    job = sweep.job(settings)
    if job.align.workers > 1:
        _align_on_ray_train(job, sweep, settings)
        return
    trainer = Trainer(job, sweep.worker.device, networks=_bench(sweep).networks)
    latest = tune.get_checkpoint()
    if latest is not None:
        with latest.as_directory() as folder:
            trainer.restore(Path(folder))

    def report(metrics: dict[str, Any], checkpoint: Path) -> None:
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(checkpoint)))

    failed = _align_and_look(trainer, sweep, settings, report)
    if failed is not None:
        tune.report(_metrics(sweep, failed, {}))


def _align_and_look(
    trainer: Trainer,
    sweep: Sweep,
    settings: Settings,
    report: Callable[[dict[str, Any], Path], None],
    is_to_stop: Callable[[], bool] = lambda: False,
) -> Record | None:
    """From wherever the trainer's state is to the end; every look goes to the record, and to `report` with the state.

    Returns the record of a trial whose loss was not finite, which has still to be told.
    """
    bench, place = _bench(sweep), record_path(sweep.folder, sweep.fingerprint(settings))
    total, resumed = len(trainer.batches), trainer.alignment.step_number
    known = read_record(sweep.store, place)
    earlier = [] if known is None else [look for look in known.looks if look["step"] <= resumed]
    spent = earlier[-1]["seconds"] if earlier else 0.0
    record, start = Record(settings, "running", earlier, trainer.curve), time.monotonic()
    twin = copy.deepcopy(trainer.alignment.source)  # it is looked at in eval mode; the training stays as it is

    def look() -> None:
        step = trainer.alignment.step_number
        twin.load_state_dict(trainer.alignment.source.state_dict())
        twin.eval().requires_grad_(False)
        everything = range(len(sweep.validation.image_ids))
        seen = bench.look(twin, sweep.baseline, everything if step == total else sweep.validation.few)
        record.seconds = round(spent + time.monotonic() - start, 2)
        record.looks.append(asdict(seen) | {"step": step, "timestamp": time.time(), "seconds": record.seconds})
        if step == total:
            record.status = "done"
        write_record(sweep.store, place, record)
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(Path(folder))
            report(_metrics(sweep, record, record.last), Path(folder))

    try:
        trainer.run(look, _looks(total), is_to_stop)
    except NonFiniteLoss as problem:
        record.status, record.reason = "failed", str(problem)
    if record.status == "done":
        return None
    if trainer.alignment.step_number < total and record.status == "running":
        record.status, record.reason = "stopped", STOPPED
    record.seconds = round(spent + time.monotonic() - start, 2)
    write_record(sweep.store, place, record)
    return record if record.status == "failed" else None


def _looks(total: int) -> set[int]:
    """Numbers of steps after which is looked."""
    return {-(-total * part // LOOKS) for part in range(1, LOOKS + 1)}


def _metrics(sweep: Sweep, record: Record, look: Mapping[str, Any]) -> dict[str, Any]:
    """What Tune, its scheduler and its searcher are told of one look."""
    if record.status == "failed":
        return {"gain": -100.0, "score": _SPOILT, "step": -1}
    score = sweep.score(look["gain"], look["clean_change"])
    return {"gain": look["gain"], "score": score, "step": look["step"]}


_benches: dict[str, Bench] = {}


def _bench(sweep: Sweep) -> Bench:
    """The one of this process: Tune reuses its actors from trial to trial."""
    mark = fingerprint_of(sweep.inputs)
    if mark not in _benches:
        _benches.clear()
        _benches[mark] = Bench(sweep.validation, sweep.base.loader, sweep.worker.device, sweep.worker.threads)
    return _benches[mark]


def measure_baseline(validation: Validation, base: FineTune, worker: Worker) -> Baseline:
    """The unaligned source on the validation images; a Ray task, before the first trial."""
    return Bench(validation, base.loader, worker.device, worker.threads).baseline()


def _align_on_ray_train(job: FineTune, sweep: Sweep, settings: Settings) -> None:
    """The same with several workers: each look is reported by Ray Train, and passed on to Tune."""
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    note = stop_note(tune.get_context().get_trial_id())
    sweep.store.delete(note)  # of a run that was broken off
    arguments = trainer_arguments(sweep.store, job.name, job.align.workers, sweep.worker, [TuneReportCallback()])
    loop = {"job": job, "sweep": sweep, "settings": settings, "note": note}
    TorchTrainer(_train_worker, train_loop_config=loop, **arguments).fit()
    delete_run(sweep.store, job.name)
    sweep.store.delete(note)


def _train_worker(config: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs in a trial."""
    import ray.train

    sweep, settings = config["sweep"], config["settings"]
    trainer = worker_trainer(config["job"])
    is_to_stop = _reader(sweep.store, config["note"], trainer) if sweep.is_scheduled else lambda: False
    if trainer.rank == 0:

        def report(metrics: dict[str, Any], checkpoint: Path) -> None:
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(checkpoint)))

        failed = _align_and_look(trainer, sweep, settings, report, is_to_stop)
        if failed is not None:
            ray.train.report(_metrics(sweep, failed, {}))
        return
    try:
        trainer.run(lambda: ray.train.report({}), _looks(len(trainer.batches)), is_to_stop)
    except NonFiniteLoss:  # on every worker at the same step; the first one tells
        ray.train.report({})


def _reader(store: Store, note: str, trainer: Trainer) -> Callable[[], bool]:
    """Whether the scheduler has left its note: the first worker looks, twice a second, and all end at the same step."""
    looked = 0.0

    def is_to_stop() -> bool:
        nonlocal looked
        is_there_1 = torch.zeros(1, device=trainer.device)
        if trainer.rank == 0 and time.monotonic() - looked > 0.5:
            looked = time.monotonic()
            is_there_1.fill_(store.exists(note))
        torch.distributed.broadcast(is_there_1, 0)
        return bool(is_there_1.item())

    return is_to_stop
