"""Evaluation: clean or corrupted images x models -> predictions; adversarial images x targets -> outcomes.

Each chunk of images is read once in every turn of networks, and shown to those whose prediction on it is missing. What
they predict is one file, which `pipelines.storage.joint_table` splits once all chunks are there.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NotRequired, TypedDict, cast

import pyarrow as pa
import torch

from align_core.corruptions.corrupt import corrupted
from align_core.finite import check_finite
from align_core.images.decoding import Pixels
from align_core.predicted import predicted
from pipelines.compute.cluster import Worker, workers_that_fit
from pipelines.compute.device_failures import GUARD
from pipelines.compute.fill import Missing, fill
from pipelines.compute.images import TestImages
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.ray_data import run_pipeline
from pipelines.compute.sent import sent
from pipelines.compute.starting_nodes import await_node
from pipelines.compute.turns import TURNS
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images
from pipelines.stages.crafted_chunk import crafted_chunk
from pipelines.stages.evaluations import UNDER_WAY, Evaluation, Turn, in_turns
from pipelines.stages.payload import network_loader
from pipelines.stages.saving import saving
from pipelines.stages.speeds import Speeds
from pipelines.storage.store import Store


@dataclass(frozen=True)
class EvaluateJob:
    """Everything that evaluators need to know; sent to each once.

    Args:
        store, loader, images: where results go, how networks are loaded, and the test images.
        turns: what is predicted on which images.
        seed: of the random numbers of corruptions.
        device, threads: of each worker.
        most_networks: how many networks a worker holds at once.
        patience: seconds after which a worker that is at one chunk counts as stuck.
    """

    store: Store
    loader: NetworkLoader
    images: TestImages
    turns: Sequence[Turn]
    seed: int
    device: str
    threads: int
    most_networks: int
    patience: float

    @property
    def longest(self) -> float:
        """How many times its patience one chunk may take: every chunk is as long as any other."""
        return 1.0


class EvaluateItem(TypedDict):
    """One chunk of the images of `turns[number]`; `lacking` is a JSON list of the positions, among the predictions, of
    those that are missing on it; `images`: uint8 [B, C, H, W], once they are read."""

    number: int
    chunk: int
    lacking: str
    images: NotRequired[Pixels]


class EvaluatedChunk(TypedDict):
    """What was done: `made` is a JSON list of [position among the predictions, seconds]."""

    number: int
    chunk: int
    made: str


def evaluate_all(
    blueprint: Blueprint, worker: Worker, progress: Progress, only: Sequence[Evaluation] | None = None
) -> int:
    """Evaluates what is missing, of everything or `only` of this.

    Returns the number of chunks, each counted for every network that predicts on it.

    Raises RunFailed.
    """
    compute, rows, speeds = blueprint.experiment.compute, blueprint.rows, Speeds(blueprint)
    turns = in_turns(blueprint.evaluations if only is None else only)

    def work(missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
        job = EvaluateJob(
            store=blueprint.store,
            loader=network_loader(blueprint),
            images=test_images(blueprint),
            turns=turns,
            seed=blueprint.experiment.seed,
            device=worker.device,
            threads=worker.threads,
            most_networks=compute.networks,
            patience=patience,
        )
        lacking = cast("Mapping[str, Mapping[int, tuple[int, ...]]]", missing)  # as `JointTable.missing` returns them
        text = cache(json.dumps)  # most chunks lack the same, and there may be half a million
        items = [
            EvaluateItem(number=number, chunk=chunk, lacking=text(positions))
            for number, turn in enumerate(turns)
            for chunk, positions in lacking.get(turn.joint.folder, {}).items()
        ]
        total = sum(rows[chunk] * len(own) for chunks in lacking.values() for chunk, own in chunks.items())
        await_node(worker, progress.say)
        workers = workers_that_fit(worker)
        with progress.stage("evaluate", total, "predictions", workers) as bar:
            for done in run_pipeline(items, _read, job, Evaluator, worker, workers, bar.took):
                turn, chunk, made = turns[done["number"]], done["chunk"], json.loads(done["made"])
                bar.advance(rows[chunk] * len(made))
                for position, seconds in made:
                    members = turn.predictions[position].members
                    speeds.note("prediction", members, worker.device, rows[chunk], seconds)
                yield turn.joint.folder, chunk, len(made)

    tables = [turn.joint for turn in turns]
    with saving(speeds):
        made = fill(blueprint.store, tables, rows, progress.say, work, compute.patience)
    listing = blueprint.store.listing()
    if only is None and not any(table.unfinished(listing) for table in tables):
        blueprint.store.delete_folder(UNDER_WAY)  # its folders are empty
    return made


def _read(job: EvaluateJob, item: EvaluateItem) -> EvaluateItem:
    """Adds the chunk's images. Raises ValueError if adversarial ones are damaged or not the expected ones."""
    chunk, turn = item["chunk"], job.turns[item["number"]]
    ids = job.images.ids_of(chunk)
    if turn.images is not None:
        return {**item, "images": crafted_chunk(job.store, turn.images, chunk, ids)}
    clean = job.images.read(chunk)
    return {**item, "images": corrupted(clean, ids, turn.corruption, job.seed) if turn.corruption else clean}


class Evaluator:
    """Holds models and predicts chunk after chunk."""

    def __init__(self, job: EvaluateJob) -> None:
        self.job, self.networks = job, LoadedNetworks(job.loader, job.device, job.most_networks)

    def __call__(self, item: EvaluateItem) -> EvaluatedChunk:
        """Makes every missing prediction on one chunk, and commits those that succeeded, in one file.

        What fails is recorded beside its own table; the run goes on with the others.
        """
        job, chunk, turn = self.job, item["chunk"], self.job.turns[item["number"]]
        images_BCHW = sent(item["images"], job.device).to(torch.float32) / 255
        labels_B = torch.tensor(job.images.labels_of(chunk), device=job.device)
        prefix = "" if turn.images is None else "adversarial_"
        found: dict[int, pa.Table] = {}
        made, ids = [], job.images.ids_of(chunk)
        for position in json.loads(item["lacking"]):
            members, table = turn.predictions[position]
            try:
                network = self.networks.mean_of(members)
                start = time.monotonic()  # a network is loaded once, so loading is no part of the speed
                with torch.no_grad():
                    logits_BK = network(images_BCHW, ids)
                self._check(logits_BK, images_BCHW, members, chunk)
                found[position] = _predictions(logits_BK, labels_B, ids, prefix)
                made.append((position, time.monotonic() - start))
            except (FloatingPointError, RuntimeError) as problem:
                is_final = not GUARD.meet(problem) and isinstance(problem, FloatingPointError)
                table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}", is_final)
        TURNS.end()
        if found:
            turn.joint.write_chunk(job.store, chunk, found)
        return EvaluatedChunk(number=item["number"], chunk=chunk, made=json.dumps(made))

    def _check(self, logits_BK: torch.Tensor, images_BCHW: torch.Tensor, members: Sequence[str], chunk: int) -> None:
        """Raises FloatingPointError where logits are not finite, naming the images and the member of an ensemble."""
        ids = self.job.images.ids_of(chunk)
        if len(members) > 1 and not logits_BK.isfinite().all():
            for name in members:
                with torch.no_grad():
                    check_finite(self.networks.mean_of([name])(images_BCHW), ids, name)
        check_finite(logits_BK, ids, " and ".join(members))


def _predictions(logits_BK: torch.Tensor, labels_B: torch.Tensor, ids: list[str], prefix: str) -> pa.Table:
    """A row per image: the prediction, and the confidence, which is the softmax of the label."""
    found = predicted(logits_BK, labels_B)
    return pa.table(
        {
            "image_id": ids,
            "label": labels_B.cpu().numpy(),
            f"{prefix}prediction": found.classes_B,
            f"{prefix}confidence": found.confidence_B,
        }
    )
