"""Evaluation: clean images x models -> predictions; adversarial images x targets -> outcomes.

Each chunk of adversarial images is read once and shown to every model whose outcome on it is missing.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from pipelines.compute.cluster import Worker, workers_that_fit
from pipelines.compute.fill import Missing, fill
from pipelines.compute.loading import LoadedNetworks, NetworkLoader, use_threads
from pipelines.compute.ray_data import Decode, Row, TestImages, adversarial_images, ends_if_stuck, run_pipeline
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint, Look
from pipelines.stages.speeds import Rates
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store


@dataclass(frozen=True)
class Viewing:
    """Images, and the tables of those who look at them.

    Attributes:
        images: the table of adversarial images; None for the clean ones.
        tables: of the predictions.
    """

    images: ChunkedTable | None
    tables: Sequence[Look]


@dataclass(frozen=True)
class EvaluateJob:
    """Everything that readers and evaluators need to know.

    `missing` gives the chunks to make: folder -> numbers; `most_networks` how many networks a worker holds at once,
    `patience` the seconds after which it counts as stuck.
    """

    store: Store
    loader: NetworkLoader
    images: TestImages
    viewings: Sequence[Viewing]
    missing: Missing
    device: str
    threads: int
    most_networks: int
    patience: float


def evaluate_all(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Evaluates what is missing; returns the number of chunks. Raises RunFailed."""
    compute, rates = blueprint.experiment.compute, Rates(blueprint)
    viewings = viewings_of(blueprint)

    def work(missing: Missing, patience: float) -> Iterator[tuple[str, int]]:
        job = EvaluateJob(
            store=blueprint.store,
            loader=blueprint.loader(),
            images=blueprint.test_images(),
            viewings=viewings,
            missing=missing,
            device=worker.device,
            threads=worker.threads,
            most_networks=compute.networks,
            patience=patience,
        )
        items = [
            {"viewing": index, "chunk": chunk}
            for index, viewing in enumerate(viewings)
            for chunk in sorted(frozenset().union(*(missing.get(table.folder, ()) for _, table in viewing.tables)))
        ]
        total = sum(blueprint.rows[chunk] for chunks in missing.values() for chunk in chunks)
        workers = workers_that_fit(worker)
        with progress.stage("evaluate", total, "predictions") as bar:
            for row in run_pipeline(items, _read, job, Evaluator, worker, workers, patience):
                chunk, tables = int(row["chunk"]), viewings[int(row["viewing"])].tables
                for index, seconds in json.loads(row["made"]):
                    members, table = tables[index]
                    bar.advance(blueprint.rows[chunk])
                    rates.note("prediction", members, worker.device, blueprint.rows[chunk], seconds)
                    yield table.folder, chunk

    tables = [table for viewing in viewings for _, table in viewing.tables]
    made = fill(blueprint.store, tables, blueprint.rows, progress.say, work, compute.patience)
    rates.save()
    return made


def viewings_of(blueprint: Blueprint) -> list[Viewing]:
    """Who looks at what. More networks than a worker holds look by turns: each turn goes over all the images."""
    most = blueprint.experiment.compute.networks
    whole = [Viewing(None, list(blueprint.clean().values()))]
    for (surrogate, attack), looks in blueprint.looks().items():
        whole.append(Viewing(blueprint.adversarial(blueprint.by_name[surrogate], attack), looks))
    turns = -(-max(len(viewing.tables) for viewing in whole) // most)
    found = [
        replace(viewing, tables=viewing.tables[turn * most : (turn + 1) * most])
        for turn in range(turns)
        for viewing in whole
    ]
    return [viewing for viewing in found if viewing.tables]


def _read(job: EvaluateJob, item: Row) -> Row:
    """Adds the chunk's images, clean or adversarial."""
    chunk, images = int(item["chunk"]), job.viewings[int(item["viewing"])].images
    if images is None:
        return {**item, "images": job.images.read(chunk)}
    ids = job.images.ids_of(chunk)
    mend = "move that folder away, and `witness run` crafts it anew"
    try:
        table = images.read_chunk(job.store, chunk, len(ids))
    except (OSError, pa.ArrowException) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # the disk's or the store's fault, not the file's
        reason = str(problem).partition("\n")[0]
        raise ValueError(f"{images.folder}: chunk {chunk} is damaged ({reason}); {mend}") from problem
    if table["image_id"].to_pylist() != ids:
        raise ValueError(f"{images.folder}: chunk {chunk} does not hold the images that it should; {mend}")
    return {**item, "images": adversarial_images(table)}


class Evaluator:
    """An actor that holds models and predicts chunk after chunk."""

    def __init__(self, job: EvaluateJob, decode: Decode | None) -> None:
        use_threads(job.threads)
        self.job, self.networks = job, LoadedNetworks(job.loader, job.device, job.most_networks)
        self._decode = decode

    def __call__(self, item: Row) -> Row:
        """Every missing prediction on one chunk, each committed by itself; `made` lists them and their seconds."""
        with ends_if_stuck(self.job.patience):
            return self._predicted(item)

    def _predicted(self, item: Row) -> Row:
        job, chunk, made = self.job, int(item["chunk"]), []
        item = self._decode(job, item) if self._decode else item
        viewing = job.viewings[int(item["viewing"])]
        images_BCHW = torch.from_numpy(np.array(item["images"])).to(job.device).to(torch.float32) / 255
        labels_B = torch.tensor(job.images.labels_of(chunk), device=job.device)
        for index, (members, table) in enumerate(viewing.tables):
            if chunk not in job.missing.get(table.folder, ()):
                continue
            try:
                network = self.networks.mean_of(members)
                start = time.monotonic()  # loading it is done once, and is no part of the rate
                with torch.no_grad():
                    logits_BK = network(images_BCHW)
                prefix = "" if viewing.images is None else "adversarial_"
                rows = _predictions(logits_BK, labels_B, job.images.ids_of(chunk), prefix)
                table.write_chunk(job.store, chunk, rows)
                made.append((index, time.monotonic() - start))
            except RuntimeError as problem:
                table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}")
        return {"viewing": int(item["viewing"]), "chunk": chunk, "made": json.dumps(made)}


def _predictions(logits_BK: torch.Tensor, labels_B: torch.Tensor, ids: list[str], prefix: str) -> pa.Table:
    """A row per image: prediction, and confidence, the softmax of the label."""
    confidence_B = logits_BK.softmax(dim=1).gather(1, labels_B[:, None])[:, 0]
    return pa.table(
        {
            "image_id": ids,
            "label": labels_B.cpu().numpy(),
            f"{prefix}prediction": logits_BK.argmax(dim=1).cpu().numpy(),
            f"{prefix}confidence": confidence_B.float().cpu().numpy(),
        }
    )
