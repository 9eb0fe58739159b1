"""Crafting: surrogate x attack -> adversarial images, each crafted once for all targets."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from align_core.attacks import PASS_ROWS, AttackConfig, Crafted, ForeignConfig, crafted, distances
from align_core.attacks.foreign import Misbehaved
from align_core.images.decoding import Pixels
from align_core.similarity import structural_similarity
from pipelines.compute.cluster import Worker, workers_that_fit
from pipelines.compute.device_failures import GUARD
from pipelines.compute.fill import Missing, fill
from pipelines.compute.images import TestImages
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.networks import HELD_BY_CRAFTERS
from pipelines.compute.others import Pool
from pipelines.compute.ray_data import run_pipeline
from pipelines.compute.sent import sent
from pipelines.compute.starting_nodes import await_node
from pipelines.compute.towards import Towards
from pipelines.compute.turns import TURNS
from pipelines.compute.watched import watched
from pipelines.experiment.surrogates import Surrogate
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images
from pipelines.stages.payload import network_loader, others_pool, towards_of
from pipelines.stages.saving import saving
from pipelines.stages.speeds import Speeds
from pipelines.stages.times import CraftingTimes
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

_FEW_GRADIENTS = 10  # for which the patience is meant


@dataclass(frozen=True)
class CraftJob:
    """Everything that crafters need to know; sent to each once.

    Args:
        store, loader, images: where results go, how networks are loaded, and the test images.
        pool: the images that attacks may mix in.
        towards: how the classes are found that targeted attacks lead to.
        surrogates: by name.
        attacks: by name.
        tables: the table of each "surrogate/attack".
        pass_rows: rows of one pass through a surrogate.
        device, threads: of each worker.
        patience: seconds after which a worker counts as stuck that has begun no pass through its surrogate.
    """

    store: Store
    loader: NetworkLoader
    images: TestImages
    pool: Pool
    towards: Towards
    surrogates: Mapping[str, Surrogate]
    attacks: Mapping[str, AttackConfig | ForeignConfig]
    tables: Mapping[str, ChunkedTable]
    pass_rows: int
    device: str
    threads: int
    patience: float

    @property
    def longest(self) -> float:
        """How many times its patience one chunk may take: attacks of many gradients have more passes."""
        gradients = [attack.gradients or 0 for attack in self.attacks.values()]
        return max(1.0, max(gradients) / _FEW_GRADIENTS)


class CraftItem(TypedDict):
    """One chunk to craft; `clean` holds its images, uint8 [B, C, H, W], once they are read."""

    surrogate: str
    attack: str
    chunk: int
    clean: NotRequired[Pixels]


class CraftedChunk(TypedDict):
    """What was done: the number of images, of those without a gradient at any step, whether they were made, whether
    memory was too short for a whole pass, the number of all gradients, and the seconds it took without loading."""

    surrogate: str
    attack: str
    chunk: int
    images: int
    without_gradient: int
    made: bool
    in_smaller_passes: bool
    worker: str
    gradients: float
    seconds: float


def craft_job(blueprint: Blueprint, device: str, threads: int, patience: float) -> CraftJob:
    """What the workers are sent to craft any of an experiment's tables."""
    experiment = blueprint.experiment
    tables = blueprint.crafted().items()
    return CraftJob(
        store=blueprint.store,
        loader=network_loader(blueprint),
        images=test_images(blueprint),
        pool=others_pool(blueprint),
        towards=towards_of(blueprint),
        surrogates={surrogate.name: surrogate for surrogate in blueprint.surrogates},
        attacks=experiment.attacks,
        tables={f"{surrogate}/{attack}": table for (surrogate, attack), table in tables},
        pass_rows=experiment.compute.pass_rows or PASS_ROWS[device],
        device=device,
        threads=threads,
        patience=patience,
    )


def craft_all(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Crafts what is missing; returns the number of chunks. Raises RunFailed."""
    rows, tables = blueprint.rows, list(blueprint.crafted().values())
    speeds, times = Speeds(blueprint), CraftingTimes(blueprint.store)
    without_gradient: Counter[str] = Counter()
    in_smaller_passes: Counter[str] = Counter()

    def work(missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
        job = craft_job(blueprint, worker.device, worker.threads, patience)
        items = [
            CraftItem(surrogate=surrogate.name, attack=attack, chunk=chunk)
            for surrogate in blueprint.surrogates
            for attack in job.attacks
            for chunk in sorted(missing.get(job.tables[f"{surrogate.name}/{attack}"].folder, ()))
        ]
        await_node(worker, progress.say)
        workers = workers_that_fit(worker)
        with progress.stage("craft", sum(rows[item["chunk"]] for item in items), "images", workers) as bar:
            for done in run_pipeline(items, _read, job, Crafter, worker, workers, bar.took):
                surrogate, attack = done["surrogate"], done["attack"]
                bar.advance(done["images"], f"{surrogate} {attack}")
                if done["made"]:
                    without_gradient[f"{surrogate} under {attack}"] += done["without_gradient"]
                    in_smaller_passes[f"{surrogate} under {attack}"] += done["in_smaller_passes"]
                    members, gradients = job.surrogates[surrogate].seen_at_once, done["gradients"]
                    table = job.tables[f"{surrogate}/{attack}"]
                    speeds.note("gradient", members, worker.device, gradients, done["seconds"])
                    times.note(table.fingerprint, done["worker"], done["images"], done["seconds"])
                    yield table.folder, done["chunk"], 1

    with saving(speeds, times):
        made = fill(blueprint.store, tables, rows, progress.say, work, blueprint.experiment.compute.patience)
    for note in crafting_notes(without_gradient, in_smaller_passes):
        progress.say(note)
    return made


def crafting_notes(without_gradient: Mapping[str, int], in_smaller_passes: Mapping[str, int]) -> list[str]:
    """What has to be said of the crafting, a sentence each.

    Args:
        without_gradient: "surrogate under attack" -> the number of images whose gradient was zero at every step.
        in_smaller_passes: the same -> the number of chunks for which memory was short.
    """
    notes = [
        f"{what}: the gradient of {count} images was zero at every step, so that they stay as they are"
        for what, count in without_gradient.items()
        if count
    ]
    return notes + [
        f"{what}: memory did not hold a whole pass, and {count} chunks were crafted in smaller ones, which can change "
        "single pixels. The column `pass_rows` has their size; a smaller `compute.pass` makes all chunks alike"
        for what, count in in_smaller_passes.items()
        if count
    ]


def _read(job: CraftJob, item: CraftItem) -> CraftItem:
    """Adds the chunk's clean images."""
    return {**item, "clean": job.images.read(item["chunk"])}


class Crafter:
    """Holds surrogates and crafts chunk after chunk."""

    def __init__(self, job: CraftJob) -> None:
        self.job, self.networks = job, LoadedNetworks(job.loader, job.device, HELD_BY_CRAFTERS)
        threads = f"{job.threads} thread{'s' if job.threads > 1 else ''}"
        self._kind = torch.cuda.get_device_name() if job.device == "cuda" else f"cpu, {threads}"

    def __call__(self, item: CraftItem) -> CraftedChunk:
        """Crafts one chunk and commits it. A failure is recorded beside the table, and the run goes on."""
        job, surrogate, attack, chunk = self.job, item["surrogate"], item["attack"], item["chunk"]
        table = job.tables[f"{surrogate}/{attack}"]
        made, seconds = None, 0.0
        try:
            network = self.networks.mean_of(job.surrogates[surrogate].members, job.surrogates[surrogate].combine)
            start = time.monotonic()  # a network is loaded once, so loading is no part of the speed
            with watched(network):
                rows, made = self._craft(network, job.surrogates[surrogate].seed, attack, chunk, item["clean"])
            seconds = time.monotonic() - start
            TURNS.end()
            table.write_chunk(job.store, chunk, rows)
        except (FloatingPointError, Misbehaved, RuntimeError) as problem:
            is_final = not GUARD.meet(problem) and isinstance(problem, FloatingPointError | Misbehaved)
            table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}", is_final)
            made = None
        return CraftedChunk(
            surrogate=surrogate,
            attack=attack,
            chunk=chunk,
            images=len(item["clean"]),
            without_gradient=int(made.without_gradient_B.sum()) if made else 0,
            made=made is not None,
            worker=self._kind,
            in_smaller_passes=bool(made and made.pass_rows and made.pass_rows < job.pass_rows),
            gradients=len(item["clean"]) * made.gradients if made else 0.0,
            seconds=seconds,
        )

    def _craft(self, network: nn.Module, seed: int, attack: str, chunk: int, clean: Pixels) -> tuple[pa.Table, Crafted]:
        """The rows of a chunk, and what the attack made."""
        job = self.job
        ids, labels = job.images.ids_of(chunk), job.images.labels_of(chunk)
        images_BCHW = sent(clean, job.device)
        labels_B = torch.tensor(labels, device=job.device)
        config = job.attacks[attack]
        others = job.pool.read(job.device) if config.needs_others else None
        wanted_B = None
        if config.is_targeted:
            wanted_B = job.towards.of_chunk(config.towards, chunk, images_BCHW, self.networks)
        made = crafted(
            network, images_BCHW, labels_B, ids, config, seed,
            wanted_B=wanted_B, others=others, pass_rows=job.pass_rows,
        )  # fmt: skip
        linf_B, l2_B = distances(made.images_BCHW, images_BCHW)
        pixels = np.ascontiguousarray(made.images_BCHW.cpu().numpy())
        columns: dict[str, Any] = {"image_id": ids, "label": pa.array(labels, pa.int64())}
        if wanted_B is not None:
            columns["towards"] = wanted_B.cpu().numpy()
        columns |= {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
            "linf": linf_B.cpu().numpy(),
            "l2": l2_B.cpu().numpy(),
            "ssim": structural_similarity(made.images_BCHW, images_BCHW).cpu().numpy(),
        }
        if made.pass_rows is None:  # its code is not ours: what it did was counted
            columns["gradients"] = pa.array([made.gradients] * len(ids), pa.float32())
        else:
            columns["pass_rows"] = pa.array([made.pass_rows] * len(ids), pa.int32())
        return pa.table(columns), made
