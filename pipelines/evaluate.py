"""Evaluation: clean images x models -> predictions; adversarial images x targets -> outcomes.

Each chunk of adversarial images is read once and shown to every model whose outcome on it is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from pipelines.chunks import Decode, Row, TestImages, adversarial_images, fill, run_pipeline
from pipelines.cluster import Worker, workers_that_fit
from pipelines.networks import LoadedNetworks, NetworkLoader, use_threads
from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.store import Store
from pipelines.table import ChunkedTable


@dataclass(frozen=True)
class Viewing:
    """Images, and the tables of those who look at them.

    Attributes:
        images: the table of adversarial images; None for the clean ones.
        tables: (members whose mean predicts, table of the predictions).
    """

    images: ChunkedTable | None
    tables: Sequence[tuple[tuple[str, ...], ChunkedTable]]


@dataclass(frozen=True)
class EvaluateJob:
    """Everything that readers and evaluators need to know; `missing` gives the chunks to make: folder -> numbers."""

    store: Store
    loader: NetworkLoader
    images: TestImages
    viewings: Sequence[Viewing]
    missing: Mapping[str, set[int]]
    device: str
    threads: int


def evaluate_all(plan: Plan, worker: Worker, progress: Progress) -> int:
    """Evaluates what is missing; returns the number of chunks. Raises RunFailed."""
    viewings = _viewings(plan)
    tables = [table for viewing in viewings for _, table in viewing.tables]

    def work(missing: dict[str, set[int]]) -> None:
        job = EvaluateJob(
            store=plan.store,
            loader=plan.loader(),
            images=plan.test_images(),
            viewings=viewings,
            missing=missing,
            device=worker.device,
            threads=worker.threads,
        )
        items = [
            {"viewing": index, "chunk": chunk}
            for index, viewing in enumerate(viewings)
            for chunk in sorted(set().union(*(missing.get(table.folder, set()) for _, table in viewing.tables)))
        ]
        total = sum(plan.rows[chunk] for chunks in missing.values() for chunk in chunks)
        workers = workers_that_fit(plan.experiment.compute, worker)
        with progress.stage("evaluate", total, "predictions") as bar:
            for row in run_pipeline(items, _read, job, Evaluator, worker, workers):
                bar.advance(int(row["predictions"]))

    return fill(plan.store, tables, plan.rows, progress.say, work)


def _viewings(plan: Plan) -> list[Viewing]:
    viewings = {"clean": Viewing(None, list(plan.clean().values()))}
    adversarial = {(s.name, a): plan.adversarial(s, a) for s in plan.surrogates for a in plan.experiment.attacks}
    looks: dict[tuple[str, str], list[tuple[tuple[str, ...], ChunkedTable]]] = {pair: [] for pair in adversarial}
    for cell in plan.cells():
        looks[cell.surrogate, cell.attack].append((plan.members_of(cell), cell.table))
    return [*viewings.values(), *(Viewing(table, looks[pair]) for pair, table in adversarial.items())]


def _read(job: EvaluateJob, item: Row) -> Row:
    """Adds the chunk's images, clean or adversarial."""
    chunk, images = int(item["chunk"]), job.viewings[int(item["viewing"])].images
    if images is None:
        return {**item, "images": job.images.read(chunk)}
    ids = job.images.ids_of(chunk)
    table = images.read_chunk(job.store, chunk, len(ids))
    if table["image_id"].to_pylist() != ids:
        raise ValueError(f"{images.folder}: chunk {chunk} does not hold the images that it should")
    return {**item, "images": adversarial_images(table)}


class Evaluator:
    """An actor that holds models and predicts chunk after chunk."""

    def __init__(self, job: EvaluateJob, decode: Decode | None) -> None:
        use_threads(job.threads)
        self.job, self.networks = job, LoadedNetworks(job.loader, job.device)
        self._decode = decode

    def __call__(self, item: Row) -> Row:
        """Every missing prediction on one chunk, each committed by itself."""
        job, chunk, predictions = self.job, int(item["chunk"]), 0
        item = self._decode(job, item) if self._decode else item
        viewing = job.viewings[int(item["viewing"])]
        images_BCHW = torch.from_numpy(np.array(item["images"])).to(job.device).to(torch.float32) / 255
        labels_B = torch.tensor(job.images.labels_of(chunk), device=job.device)
        for members, table in viewing.tables:
            if chunk not in job.missing.get(table.folder, ()):
                continue
            try:
                with torch.no_grad():
                    logits_BK = self.networks.mean_of(members)(images_BCHW)
                prefix = "" if viewing.images is None else "adversarial_"
                rows = _predictions(logits_BK, labels_B, job.images.ids_of(chunk), prefix)
                table.write_chunk(job.store, chunk, rows)
            except RuntimeError as problem:
                table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}")
            predictions += len(labels_B)
        return {"predictions": predictions}


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
