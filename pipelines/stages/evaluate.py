"""Evaluation: clean images x models -> predictions; adversarial images x targets -> outcomes.

Each chunk of images is read once and shown to every model whose prediction on it is missing.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import torch

from align_core.errors import reason_of
from align_core.finite import check_finite
from align_core.images.decoding import Pixels
from pipelines.compute.cluster import Worker, workers_that_fit
from pipelines.compute.fill import Missing, fill
from pipelines.compute.images import TestImages, adversarial_images
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.ray_data import run_pipeline
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.payload import network_loader, test_images
from pipelines.stages.speeds import Speeds
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store


@dataclass(frozen=True)
class WantedPredictions:
    """One set of images, and every prediction that is wanted on it.

    Attributes:
        images: the table of adversarial images; None for the clean ones.
        predictions: who predicts, and the table of the predictions.
    """

    images: ChunkedTable | None
    predictions: Sequence[Predictions]


@dataclass(frozen=True)
class EvaluateJob:
    """Everything that readers and evaluators need to know; sent to each once.

    Args:
        store, loader, images: where results go, how networks are loaded, and the test images.
        wanted: what is predicted on which images.
        missing: folder of a table -> numbers of the chunks that it lacks.
        device, threads: of each worker.
        most_networks: how many networks a worker holds at once.
        patience: seconds after which a worker that is at one chunk counts as stuck.
    """

    store: Store
    loader: NetworkLoader
    images: TestImages
    wanted: Sequence[WantedPredictions]
    missing: Missing
    device: str
    threads: int
    most_networks: int
    patience: float


class EvaluateItem(TypedDict):
    """One chunk of the images of `wanted[number]`; `images`: uint8 [B, C, H, W], once they are read."""

    number: int
    chunk: int
    images: NotRequired[Pixels]


class EvaluatedChunk(TypedDict):
    """What was done: `made` is a JSON list of [position among the predictions, seconds]."""

    number: int
    chunk: int
    made: str


def evaluate_all(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Evaluates what is missing; returns the number of chunks. Raises RunFailed."""
    compute, rows, speeds = blueprint.experiment.compute, blueprint.rows, Speeds(blueprint)
    wanted = wanted_predictions(blueprint)

    def work(missing: Missing, patience: float) -> Iterator[tuple[str, int]]:
        job = EvaluateJob(
            store=blueprint.store,
            loader=network_loader(blueprint),
            images=test_images(blueprint),
            wanted=wanted,
            missing=missing,
            device=worker.device,
            threads=worker.threads,
            most_networks=compute.networks,
            patience=patience,
        )
        items = [
            EvaluateItem(number=number, chunk=chunk)
            for number, one in enumerate(wanted)
            for chunk in sorted(frozenset().union(*(missing.get(own.table.folder, ()) for own in one.predictions)))
        ]
        total = sum(rows[chunk] for chunks in missing.values() for chunk in chunks)
        workers = workers_that_fit(worker)
        with progress.stage("evaluate", total, "predictions") as bar:
            for done in run_pipeline(items, _read, job, Evaluator, worker, workers):
                chunk = done["chunk"]
                for position, seconds in json.loads(done["made"]):
                    members, table = wanted[done["number"]].predictions[position]
                    bar.advance(rows[chunk])
                    speeds.note("prediction", members, worker.device, rows[chunk], seconds)
                    yield table.folder, chunk

    tables = [own.table for one in wanted for own in one.predictions]
    made = fill(blueprint.store, tables, rows, progress.say, work, compute.patience)
    speeds.save()
    return made


def wanted_predictions(blueprint: Blueprint) -> list[WantedPredictions]:
    """Every prediction of the experiment, by the images that it is made on.

    Where more networks predict on some images than a worker holds, they take turns: each turn goes over all the images.
    """
    most = blueprint.experiment.compute.networks
    whole = [WantedPredictions(None, list(blueprint.clean().values()))]
    adversarial = blueprint.all_adversarial()
    whole += [WantedPredictions(adversarial[pair], own) for pair, own in blueprint.outcomes().items()]
    turns = -(-max(len(one.predictions) for one in whole) // most)
    found = [
        replace(one, predictions=one.predictions[turn * most : (turn + 1) * most])
        for turn in range(turns)
        for one in whole
    ]
    return [one for one in found if one.predictions]


def _read(job: EvaluateJob, item: EvaluateItem) -> EvaluateItem:
    """Adds the chunk's images, clean or adversarial. Raises ValueError if they are damaged or not the
    expected ones."""
    chunk, images = item["chunk"], job.wanted[item["number"]].images
    if images is None:
        return {**item, "images": job.images.read(chunk)}
    ids = job.images.ids_of(chunk)
    mend = "move that folder away, and `witness run` crafts it anew"
    try:
        table = images.read_chunk(job.store, chunk, len(ids))
    except (OSError, pa.ArrowException) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # the disk or the store failed, not the file
        raise ValueError(f"{images.folder}: chunk {chunk} is damaged ({reason_of(problem)}); {mend}") from problem
    if table["image_id"].to_pylist() != ids:
        raise ValueError(f"{images.folder}: chunk {chunk} does not hold the images that it should; {mend}")
    return {**item, "images": adversarial_images(table)}


class Evaluator:
    """Holds models and predicts chunk after chunk."""

    def __init__(self, job: EvaluateJob) -> None:
        self.job, self.networks = job, LoadedNetworks(job.loader, job.device, job.most_networks)

    def __call__(self, item: EvaluateItem) -> EvaluatedChunk:
        """Makes every missing prediction on one chunk, and commits each by itself."""
        job, chunk, made = self.job, item["chunk"], []
        wanted = job.wanted[item["number"]]
        prefix = "" if wanted.images is None else "adversarial_"
        images_BCHW = torch.from_numpy(np.array(item["images"])).to(job.device).to(torch.float32) / 255
        labels_B = torch.tensor(job.images.labels_of(chunk), device=job.device)
        for position, (members, table) in enumerate(wanted.predictions):
            if chunk not in job.missing.get(table.folder, ()):
                continue
            try:
                network = self.networks.mean_of(members)
                start = time.monotonic()  # a network is loaded once, so loading is no part of the speed
                with torch.no_grad():
                    logits_BK = network(images_BCHW)
                self._check(logits_BK, images_BCHW, members, chunk)
                rows = _predictions(logits_BK, labels_B, job.images.ids_of(chunk), prefix)
                table.write_chunk(job.store, chunk, rows)
                made.append((position, time.monotonic() - start))
            except (FloatingPointError, RuntimeError) as problem:
                is_final = isinstance(problem, FloatingPointError)
                table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}", is_final)
        return EvaluatedChunk(number=item["number"], chunk=chunk, made=json.dumps(made))

    def _check(self, logits_BK: torch.Tensor, images_BCHW: torch.Tensor, members: Sequence[str], chunk: int) -> None:
        """Raises FloatingPointError where logits are not finite, naming the images and the member of an ensemble."""
        ids = self.job.images.ids_of(chunk)
        if len(members) > 1 and not logits_BK.isfinite().all():
            for name in members:
                with torch.no_grad():
                    check_finite(self.networks.network(name)(images_BCHW), ids, name)
        check_finite(logits_BK, ids, " and ".join(members))


def _predictions(logits_BK: torch.Tensor, labels_B: torch.Tensor, ids: list[str], prefix: str) -> pa.Table:
    """A row per image: the prediction, and the confidence, which is the softmax of the label."""
    confidence_B = logits_BK.softmax(dim=1).gather(1, labels_B[:, None])[:, 0]
    return pa.table(
        {
            "image_id": ids,
            "label": labels_B.cpu().numpy(),
            f"{prefix}prediction": logits_BK.argmax(dim=1).cpu().numpy(),
            f"{prefix}confidence": confidence_B.float().cpu().numpy(),
        }
    )
