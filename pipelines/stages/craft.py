"""Crafting: surrogate x attack -> adversarial images, each crafted once for all targets."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from align_core.attacks import AttackConfig, craft, distances
from pipelines.compute.cluster import Worker, workers_that_fit
from pipelines.compute.fill import Missing, fill
from pipelines.compute.loading import LoadedNetworks, NetworkLoader, use_threads
from pipelines.compute.ray_data import Decode, Row, TestImages, ends_if_stuck, run_pipeline
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.speeds import Rates
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

_HELD = 4  # networks: one surrogate is crafted on after the other


@dataclass(frozen=True)
class CraftJob:
    """Everything that decoders and crafters need to know; sent to each once.

    `surrogates` gives each surrogate's members, `tables` the table of each "surrogate/attack", `patience` the seconds
    after which a worker counts as stuck.
    """

    store: Store
    loader: NetworkLoader
    images: TestImages
    surrogates: Mapping[str, tuple[str, ...]]
    attacks: Mapping[str, AttackConfig]
    tables: Mapping[str, ChunkedTable]
    seed: int
    device: str
    threads: int
    patience: float


def craft_all(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Crafts what is missing; returns the number of chunks. Raises RunFailed."""
    pairs = [(surrogate, attack) for surrogate in blueprint.surrogates for attack in blueprint.experiment.attacks]
    tables = {f"{surrogate.name}/{attack}": blueprint.adversarial(surrogate, attack) for surrogate, attack in pairs}
    compute, rates = blueprint.experiment.compute, Rates(blueprint)
    gradients = {name: attack.gradients for name, attack in blueprint.experiment.attacks.items()}

    def work(missing: Missing, patience: float) -> Iterator[tuple[str, int]]:
        job = CraftJob(
            store=blueprint.store,
            loader=blueprint.loader(),
            images=blueprint.test_images(),
            surrogates={surrogate.name: surrogate.members for surrogate in blueprint.surrogates},
            attacks=blueprint.experiment.attacks,
            tables=tables,
            seed=blueprint.experiment.seed,
            device=worker.device,
            threads=worker.threads,
            patience=patience,
        )
        items: list[Row] = [
            {"surrogate": surrogate.name, "attack": attack, "chunk": chunk}
            for surrogate, attack in pairs
            for chunk in sorted(missing.get(tables[f"{surrogate.name}/{attack}"].folder, ()))
        ]
        workers = workers_that_fit(worker)
        with progress.stage("craft", sum(blueprint.rows[item["chunk"]] for item in items), "images") as bar:
            for row in run_pipeline(items, _decode, job, Crafter, worker, workers, patience):
                surrogate, attack, images = str(row["surrogate"]), str(row["attack"]), int(row["images"])
                bar.advance(images, f"{surrogate} {attack}")
                if row["made"]:
                    count = images * gradients[attack]
                    rates.note("gradient", job.surrogates[surrogate], worker.device, count, float(row["seconds"]))
                    yield tables[f"{surrogate}/{attack}"].folder, int(row["chunk"])

    made = fill(blueprint.store, list(tables.values()), blueprint.rows, progress.say, work, compute.patience)
    rates.save()
    return made


def _decode(job: CraftJob, item: Row) -> Row:
    """Adds the chunk's clean images."""
    return {**item, "clean": job.images.read(item["chunk"])}


class Crafter:
    """An actor that holds surrogates and crafts chunk after chunk."""

    def __init__(self, job: CraftJob, decode: Decode | None) -> None:
        use_threads(job.threads)
        self.job, self.networks = job, LoadedNetworks(job.loader, job.device, _HELD)
        self._decode = decode

    def __call__(self, item: Row) -> Row:
        """Crafts one chunk and commits it; a failure is noted beside the table, and the run goes on."""
        with ends_if_stuck(self.job.patience):
            return self._crafted_row(item)

    def _crafted_row(self, item: Row) -> Row:
        job, chunk = self.job, int(item["chunk"])
        item = self._decode(job, item) if self._decode else item
        surrogate, attack = str(item["surrogate"]), str(item["attack"])
        table = job.tables[f"{surrogate}/{attack}"]
        start, made = time.monotonic(), True
        try:
            network = self.networks.mean_of(job.surrogates[surrogate])
            start = time.monotonic()  # loading it is done once, and is no part of the rate
            table.write_chunk(job.store, chunk, self._crafted(network, attack, chunk, item["clean"]))
        except (FloatingPointError, RuntimeError) as problem:
            table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}")
            made = False
        done = {"surrogate": surrogate, "attack": attack, "chunk": chunk, "images": len(item["clean"])}
        return {**done, "made": made, "seconds": time.monotonic() - start}

    def _crafted(self, network: nn.Module, attack: str, chunk: int, clean: np.ndarray) -> pa.Table:
        job = self.job
        ids, labels = job.images.ids_of(chunk), job.images.labels_of(chunk)
        images_BCHW = torch.from_numpy(np.array(clean)).to(job.device)
        labels_B = torch.tensor(labels, device=job.device)
        adversarial_BCHW = craft(network, images_BCHW, labels_B, ids, job.attacks[attack], job.seed)
        linf_B, l2_B = distances(adversarial_BCHW, images_BCHW)
        pixels = np.ascontiguousarray(adversarial_BCHW.cpu().numpy())
        return pa.table(
            {
                "image_id": ids,
                "label": pa.array(labels, pa.int64()),
                "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
                "linf": linf_B.cpu().numpy(),
                "l2": l2_B.cpu().numpy(),
            }
        )
