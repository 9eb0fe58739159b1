"""A fine-tune on Ray: by several data-parallel workers with Ray Train, by a single worker as a Ray task.

Both resume from the last checkpoint of a run with the same name, retry after a lost worker or node, and end with the
same weights as an unbroken run. A single worker does not need Ray Train's controller and worker group, which take about
25 s to their first step on two cores: a task starts at once in a process that has imported torch already.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs
from torch import nn

from align_core.alignment import NonFiniteLoss
from align_core.errors import InputError, reason_of
from pipelines.compute.checkpoint import DamagedCheckpoint
from pipelines.compute.cluster import Worker, room_beside_failed_gpus
from pipelines.compute.device_failures import GUARD, LeftAlone, check_not_left_alone
from pipelines.compute.fine_tune import (
    FineTune,
    Trainer,
    fine_tune_alone,
)
from pipelines.compute.ray_internals import raised_by_workers
from pipelines.compute.tuned import Tuned, from_checkpoint, write_networks
from pipelines.storage.store import Store
from pipelines.storage.writable import LASTING

RUNS = ".train"
"""The folder in the store that holds the checkpoints and the progress of unfinished fine-tunes."""

RETRIES = 3

Done = TypeVar("Done")


def fine_tune(job: FineTune, run_name: str, worker: Worker) -> Tuned:
    """Fine-tunes on `job.align.workers` workers; returns what it ends with.

    Args:
        run_name: the run whose checkpoints it resumes from, and to which it adds.
        worker: what each worker takes of the cluster.

    Raises NonFiniteLoss, and whatever Ray raises where the work cannot be finished.
    """
    return beside_failed_gpus(
        lambda: _fine_tune(job, run_name, worker), job.loader.store, worker, needed=job.align.workers
    )


def beside_failed_gpus(work: Callable[[], Done], store: Store, worker: Worker, needed: int = 1) -> Done:
    """What `work` returns. Where it raises LeftAlone, it is done again once such GPUs are kept from all workers.

    Args:
        worker: what each worker that `work` starts takes of the cluster. needed: how many there are.

    Raises what `work` raises, and RunFailed where too few GPUs are left.
    """
    for _ in range(RETRIES):
        with suppress(LeftAlone):
            return work()
        room_beside_failed_gpus(store, worker, needed)
    return work()


def _fine_tune(job: FineTune, run_name: str, worker: Worker) -> Tuned:
    try:
        return _by_one(job, run_name, worker) if job.align.workers == 1 else _by_several(job, run_name, worker)
    except NonFiniteLoss:
        delete_run(job.loader.store, run_name)  # its checkpoints lead to the same end
        raise


def _by_one(job: FineTune, run_name: str, worker: Worker) -> Tuned:
    import ray

    # A lost process is retried by Ray itself; of exceptions, only those of a disk or store, which may recover.
    options = {**worker.ray_options, "max_retries": RETRIES, "retry_exceptions": [OSError], "name": "fine_tune_alone"}
    task = ray.remote(_fine_tune_alone).options(**options)
    try:
        result: Tuned | OSError = ray.get(task.remote(job, worker.device, f"{RUNS}/{run_name}/checkpoint"))
    except ray.exceptions.RayTaskError as problem:
        raise problem.cause from problem  # as if it had happened here
    if isinstance(result, OSError):
        raise result
    return result


def _fine_tune_alone(job: FineTune, device: str, checkpoints: str) -> Tuned | OSError:
    """Returns what it ends with, or the error of a disk that another try finds again: Ray would try, and print it."""
    with guarded(job.loader.store, f"fine-tune {job.name}"):
        try:
            return fine_tune_alone(job, device, checkpoints)
        except OSError as problem:
            if problem.errno not in LASTING:
                raise
            return OSError(problem.errno, problem.strerror, problem.filename)


@contextmanager
def guarded(store: Store, work: str) -> Iterator[None]:
    """A device error in the block ends the process; another resumes from the checkpoint. May raise LeftAlone.

    Args:
        store: where failures are noted. work: tells it from all other work of the run.
    """
    check_not_left_alone(store)
    with GUARD.over(store, work):
        yield


def _by_several(job: FineTune, run_name: str, worker: Worker) -> Tuned:
    from ray.train.torch import TorchTrainer

    arguments = trainer_arguments(job.loader.store, run_name, job.align.workers, worker)
    with raising_the_cause():
        result = TorchTrainer(_train_worker, train_loop_config={"job": job}, **arguments).fit()
    failed = (result.return_value or {}).get("failed")
    if failed:
        raise NonFiniteLoss(failed)
    with result.checkpoint.as_directory() as folder:
        return from_checkpoint(Path(folder))


@contextmanager
def raising_the_cause() -> Iterator[None]:
    """Raises what a worker of Ray Train raised in the block, where that is bad input, or a GPU to be left alone.

    The other workers fail only because they miss this one.
    """
    from ray.train import WorkerGroupError

    try:
        yield
    except WorkerGroupError as problem:
        own = (own for own in raised_by_workers(problem) if isinstance(own, InputError | LeftAlone))
        raise next(own, problem) from problem


def trainer_arguments(
    store: Store, run_name: str, workers: int, worker: Worker, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """TorchTrainer's configuration, whatever its workers run. A run of the same name resumes from its checkpoint."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    resources = {"CPU": worker.cpus, **({"GPU": worker.gpus} if worker.gpus else {}), **worker.resources}
    return {
        "torch_config": TorchConfig(backend="nccl" if worker.device == "cuda" else "gloo"),
        "scaling_config": ScalingConfig(
            num_workers=workers, use_gpu=worker.device == "cuda", resources_per_worker=resources
        ),
        "run_config": RunConfig(
            name=run_name,
            storage_path=store.path(RUNS),
            storage_filesystem=store.filesystem,
            failure_config=FailureConfig(max_failures=RETRIES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=list(callbacks),
        ),
    }


def delete_run(store: Store, run_name: str) -> None:
    """Deletes the checkpoints and the state of a run that is over."""
    store.delete_folder(f"{RUNS}/{run_name}")


def worker_trainer(job: FineTune) -> Trainer:
    """The trainer of this Ray Train worker, with the state of the run's last checkpoint that is not damaged.

    All workers read the same files, and so agree on which one that is.
    """
    import ray.train
    import ray.train.torch
    from torch.nn.parallel import DistributedDataParallel

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()

    def wrap(module: nn.Module) -> nn.Module:
        ids = [device] if device.type == "cuda" else None
        if world == 1:
            return module
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=job.unused_parameters)

    trainer = Trainer(job, str(device), rank, world, wrap)
    latest = ray.train.get_checkpoint()
    for checkpoint in [latest, *_earlier(latest)] if latest else []:
        try:
            with checkpoint.as_directory() as folder:
                trainer.restore(Path(folder))
            break
        except DamagedCheckpoint as problem:
            trainer.say(f"{job.name}: a checkpoint {reason_of(problem)}; it resumes from an earlier step")
    return trainer


def _earlier(latest: Any) -> list[Any]:
    """The checkpoints of a run before the latest, the newest first."""
    from ray.train import Checkpoint

    run, _, name = str(latest.path).rstrip("/").rpartition("/")
    found = latest.filesystem.get_file_info(fs.FileSelector(run, allow_not_found=True))
    names = sorted((info.base_name for info in found if info.base_name.startswith("checkpoint_")), reverse=True)
    return [Checkpoint(f"{run}/{own}", latest.filesystem) for own in names if own < name]


def _train_worker(config: dict[str, FineTune]) -> dict[str, str]:
    """What each of Ray Train's workers runs on config["job"]. Returns {} or, for a loss not finite, {"failed": why}.

    A failure that would come again is returned, not raised, because Ray Train would retry it.
    """
    job = config["job"]
    with guarded(job.loader.store, f"fine-tune {job.name}"):
        return _train(worker_trainer(job))


def _train(trainer: Trainer) -> dict[str, str]:
    import ray.train

    def checkpoint(is_end: bool = False) -> None:
        metrics = {"step": trainer.alignment.step_number}
        if trainer.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(Path(folder))
            if is_end:
                write_networks(trainer.result(), Path(folder))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    try:
        trainer.look()
        trainer.run(checkpoint)
        checkpoint(is_end=True)
    except NonFiniteLoss as problem:
        return {"failed": str(problem)}
    return {}
