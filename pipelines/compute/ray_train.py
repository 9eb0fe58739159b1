"""Ray Train around a fine-tune: data-parallel workers, checkpoints, and going on from the last of them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from align_core.alignment import NonFiniteLoss
from pipelines.compute.cluster import Worker
from pipelines.compute.fine_tune import FineTune, Trainer
from pipelines.storage.store import Store

RUNS = ".train"
RETRIES = 3


def trainer_arguments(
    store: Store, run_name: str, workers: int, worker: Worker, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """TorchTrainer's configuration, whatever its workers run: the same name goes on from the last checkpoint."""
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
    """What Ray Train left of a run that is over."""
    store.delete_folder(f"{RUNS}/{run_name}")


def worker_trainer(job: FineTune) -> Trainer:
    """The trainer of this Ray Train worker, with the state of the run's last checkpoint, where there is one."""
    import ray.train
    import ray.train.torch
    from torch.nn.parallel import DistributedDataParallel

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()

    def wrap(module: nn.Module) -> nn.Module:
        ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids) if world > 1 else module

    trainer = Trainer(job, str(device), rank, world, wrap)
    latest = ray.train.get_checkpoint()
    if latest is not None:
        with latest.as_directory() as folder:
            trainer.restore(Path(folder))
    return trainer


def train_on_ray_train(config: dict[str, FineTune]) -> dict[str, str]:
    """What each of Ray Train's workers runs on config["job"]. Returns {} or, for a loss not finite, {"failed": why}.

    A failure that would come again is returned, not raised: Ray Train would try it again.
    """
    import ray.train

    trainer = worker_trainer(config["job"])

    def checkpoint() -> None:
        metrics = {"step": trainer.alignment.step_number}
        if trainer.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(Path(folder))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    try:
        trainer.run(checkpoint)
    except NonFiniteLoss as problem:
        return {"failed": str(problem)}
    return {}
