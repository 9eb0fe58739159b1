"""Alignment: models without weights are trained as Ray tasks, surrogates are fine-tuned with Ray Train.

Each network is made once, and lies in the store with a card that says what it is.
"""

import csv
import io
import time
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load as load_safetensors

from align_core.errors import InputError
from align_core.model_config import model_config_as_dict
from align_core.weights import hash_weights
from pipelines.compute.cluster import Worker, room_for
from pipelines.compute.fine_tune import Curve, FineTune, from_checkpoint, train_here
from pipelines.compute.loading import NetworkLoader
from pipelines.compute.ray_train import RETRIES, RUNS, delete_run, train_on_ray_train, trainer_arguments
from pipelines.failure import RunFailed
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint, Making
from pipelines.storage.store import Store
from pipelines.storage.versions import versions


def align(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Makes every network that is missing; returns how many were. Raises RunFailed."""
    made = train_models(blueprint, blueprint.trained_for_run, worker, progress)
    missing = _missing(blueprint, blueprint.alignments(), progress)
    if missing:
        _align_all(blueprint, missing, worker, progress)
        blueprint.refresh()
    return made + len(missing)


def train_models(blueprint: Blueprint, names: Container[str], worker: Worker, progress: Progress) -> int:
    """Trains those of the named models that have no weights yet; returns how many. Raises RunFailed."""
    missing = _missing(blueprint, (making for making in blueprint.trainings() if making.name in names), progress)
    if missing:
        _train_all(blueprint, missing, worker, progress)
        blueprint.refresh()
    return len(missing)


def _missing(blueprint: Blueprint, makings: Iterable[Making], progress: Progress) -> list[Making]:
    """Those that have still to be made; what other settings made in their place is set aside."""
    missing = [making for making in makings if blueprint.networks[making.name].digest is None]
    for making in missing:
        _set_aside(blueprint.store, making, progress)
    return missing


def check_room(blueprint: Blueprint, worker: Worker) -> None:
    """Raises InputError where an alignment that is missing wants more workers than there is room for."""
    room = room_for(worker)
    for surrogate in blueprint.surrogates:
        missing = surrogate.name not in blueprint.networks or blueprint.networks[surrogate.name].digest is None
        if surrogate.align is not None and missing and surrogate.align.workers > room:
            raise InputError(
                f"align.workers: {surrogate.name} wants {surrogate.align.workers} at once, "
                f"and this cluster has room for {room}"
            )


def _set_aside(store: Store, making: Making, progress: Progress) -> None:
    """An old network under the same name, made with other settings, goes to `.stale`."""
    names = store.listing(making.folder).get(making.folder, [])
    if "card.json" in names:
        place = store.set_aside(making.folder, names)
        progress.say(f"{making.folder}: made with other settings; moved to {place}")


def job_of(blueprint: Blueprint, making: Making, worker: Worker) -> FineTune:
    """What has to be trained, as the workers need to know it."""
    experiment, manifest = blueprint.experiment, blueprint.inspected.manifests["train"]
    wanted = {*making.witnesses, making.start or making.name}
    return FineTune(
        name=making.name,
        start=making.start,
        witnesses=making.witnesses,
        align=making.align,
        loader=NetworkLoader(
            blueprint.store,
            {name: blueprint.networks[name] for name in wanted},
            experiment.data.classes,
            blueprint.inspected.shape[0],
            experiment.compute.precision,
        ),
        images=experiment.data.train,
        image_size=experiment.data.image_size,
        image_ids=manifest.ids,
        labels=manifest.labels.tolist(),
        # A model's random weights come from its name too: two of one architecture are independent.
        seed=experiment.seed if making.start else int(making.fingerprint[:8], 16),
        threads=worker.threads,
        progress_file=f"{RUNS}/{making.run_name}-progress.json",
    )


def _train_all(blueprint: Blueprint, makings: Sequence[Making], worker: Worker, progress: Progress) -> None:
    """Trains models from random weights, one Ray task each."""
    import ray

    task = ray.remote(train_here).options(**worker.ray_options, max_retries=RETRIES)
    jobs = {making.name: job_of(blueprint, making, worker) for making in makings}
    steps = sum(len(job.batches()) for job in jobs.values())
    started = {making.name: time.time() for making in makings}
    with progress.stage(f"train {len(makings)} models", steps, "steps") as bar:
        waiting = {task.remote(jobs[making.name], worker.device): making for making in makings}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=1)
            for reference in ready:
                making = waiting.pop(reference)
                try:
                    weights, curve = ray.get(reference)
                except (ray.exceptions.RayTaskError, ray.exceptions.RayError) as problem:
                    raise RunFailed(_what_failed("training", making.name, str(problem))) from problem
                commit(blueprint.store, making, weights, curve, time.time() - started[making.name])
            bar.set(_steps_done(blueprint.store, jobs.values()))


def _align_all(blueprint: Blueprint, makings: Sequence[Making], worker: Worker, progress: Progress) -> None:
    """Fine-tunes surrogates with Ray Train, as many at once as the cluster holds."""
    jobs = {making.name: job_of(blueprint, making, worker) for making in makings}
    steps = sum(len(job.batches()) for job in jobs.values())
    wanted = max(making.align.workers for making in makings)
    at_once = max(1, room_for(worker, spare_cpus=1) // wanted)  # a local cluster declares one CPU more than there is
    pool = ThreadPoolExecutor(min(at_once, len(makings)))
    try:
        with progress.stage(f"align {len(makings)} surrogates", steps, "steps") as bar:
            waiting = {pool.submit(_fit, blueprint.store, making, jobs[making.name], worker) for making in makings}
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                bar.set(_steps_done(blueprint.store, jobs.values()))
    finally:
        # After a failure or Ctrl-C the others are not waited for: they end with the connection to the cluster.
        pool.shutdown(wait=False, cancel_futures=True)


def _fit(store: Store, making: Making, job: FineTune, worker: Worker) -> None:
    """One fine-tune: goes on from the run's last checkpoint, if there is one, and leaves the network in the store."""
    from ray.train.torch import TorchTrainer

    arguments = trainer_arguments(store, making.run_name, making.align.workers, worker)
    trainer = TorchTrainer(train_on_ray_train, train_loop_config={"job": job}, **arguments)
    start = time.time()
    try:
        result = trainer.fit()
    except Exception as problem:
        raise RunFailed(_what_failed("alignment", making.name, str(problem))) from problem
    failed = (result.return_value or {}).get("failed")
    if failed:
        delete_run(store, making.run_name)  # its checkpoints lead to the same end
        raise RunFailed(_what_failed("alignment", making.name, failed))
    with result.checkpoint.as_directory() as folder:
        weights, curve = from_checkpoint(Path(folder))
    commit(store, making, weights, curve, time.time() - start)
    delete_run(store, making.run_name)


def commit(store: Store, making: Making, weights: bytes, curve: Curve, seconds: float) -> None:
    """Puts a network into the store: weights, curve, and last the card. It is there when its card is."""
    store.write(f"{making.folder}/model.safetensors", weights)
    store.write(f"{making.folder}/curves.csv", _as_csv(curve))
    card = {
        "name": making.name,
        "fingerprint": making.fingerprint,
        "inputs": making.inputs,
        "weights": hash_weights(load_safetensors(weights)),
        "model": model_config_as_dict(making.model),
        "start": making.start,
        "witnesses": list(making.witnesses),
        "settings": asdict(making.align),
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    store.write_json(f"{making.folder}/card.json", card)
    store.delete(f"{RUNS}/{making.run_name}-progress.json")


def _as_csv(curve: Curve) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(curve[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    return text.getvalue().encode()


def _steps_done(store: Store, jobs: Iterable[FineTune]) -> int:
    """Steps that the jobs say are done; one that is committed says no more."""
    done = 0
    for job in jobs:
        said = store.read_json(job.progress_file) if job.progress_file else None
        finished = store.exists(f"models/{job.name}/card.json") or store.exists(f"trained/{job.name}/card.json")
        done += int(said["done"]) if said else (len(job.batches()) if finished else 0)
    return done


def _what_failed(what: str, name: str, why: str) -> str:
    reason = [line for line in why.strip().splitlines() if line.strip()]
    return (
        f"the {what} of {name} failed: {reason[-1] if reason else 'it does not say why'}. What was finished before is "
        "kept; the same command goes on from there"
    )
