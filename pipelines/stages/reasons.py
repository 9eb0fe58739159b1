"""Reasons: what may explain a gain, measured on a sample of the test images: of each surrogate, and against others.

Each chunk of the sample is read once for each surrogate, clean and as it was attacked, and one file takes everything
that is measured on it. All surrogates come to a chunk before the next one, because what witnesses and targets make of
its clean and random points is the same for all. The gradients of targets are for analysis alone: they are taken after
crafting, and choose nothing.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict, cast

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from align_core.attacks import PASS_ROWS
from align_core.images.decoding import Pixels
from align_core.reasons import (
    Batch,
    NoGradient,
    Passed,
    compared_reasons,
    losses,
    own_reasons,
    passes_at,
    passes_of_other,
    softness,
)
from align_core.reasons.together import Columns
from pipelines.compute.cluster import Worker, workers_that_fit
from pipelines.compute.device_failures import GUARD
from pipelines.compute.fill import Missing, fill
from pipelines.compute.images import TestImages
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.ray_data import run_pipeline
from pipelines.compute.sent import sent
from pipelines.compute.starting_nodes import await_node
from pipelines.compute.turns import TURNS
from pipelines.compute.watched import watched
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.stages.clean_images import test_images
from pipelines.stages.crafted_chunk import crafted_chunk
from pipelines.stages.measurings import SOFT, UNDER_WAY, Measuring, Sample, attack_of_reasons
from pipelines.stages.payload import network_loader
from pipelines.stages.saving import saving
from pipelines.stages.speeds import Kind, Speeds
from pipelines.storage.store import Store

_FEW_GRADIENTS = 10  # for which the patience is meant


@dataclass(frozen=True)
class ReasonsJob:
    """Everything that measurers need to know; sent to each once.

    Args:
        store, loader: where results go, and how networks are loaded.
        images: those of the sample, in its chunks. all_images: all test images, in theirs.
        sample: which of them the sample is.
        measurings: what is measured.
        members: the networks of each surrogate.
        seed, eps, norm: of the points and the ball around each image.
        pass_rows: rows of one pass through a network.
        device, threads: of each worker.
        most_networks: how many networks a worker holds at once.
        patience: seconds after which a worker counts as stuck that has begun no pass through a network.
    """

    store: Store
    loader: NetworkLoader
    images: TestImages
    all_images: TestImages
    sample: Sample
    measurings: Sequence[Measuring]
    members: Mapping[str, tuple[str, ...]]
    seed: int
    eps: float
    norm: str
    pass_rows: int
    device: str
    threads: int
    most_networks: int
    patience: float

    @property
    def longest(self) -> float:
        """How many times its patience one chunk may take: it takes about 70 gradients, and three for each other."""
        return (70 + 3 * max(len(one.measured) for one in self.measurings)) / _FEW_GRADIENTS


class ReasonsItem(TypedDict):
    """One chunk of the sample, for `measurings[number]`; `lacking` is a JSON list of the positions, among what is
    measured, of that which is missing on it; the images, uint8 [B, C, H, W], are there once they are read."""

    number: int
    chunk: int
    lacking: str
    clean: NotRequired[Pixels]
    attacked: NotRequired[Pixels]


class MeasuredChunk(TypedDict):
    """What was done: `made` is a JSON list of [position among what is measured, seconds]."""

    number: int
    chunk: int
    made: str


def reasons_job(blueprint: Blueprint, device: str, threads: int, patience: float) -> ReasonsJob:
    """What the workers are sent to measure any of an experiment's reasons."""
    experiment, sample, every = blueprint.experiment, blueprint.sample, test_images(blueprint)
    attack = experiment.attacks[attack_of_reasons(experiment)]
    ids, contents = ([own[at] for at in sample.positions] for own in (every.image_ids, every.contents))
    labels = [every.labels[at] for at in sample.positions]
    return ReasonsJob(
        store=blueprint.store,
        loader=network_loader(blueprint),
        images=TestImages(every.config, every.fit, every.channels, ids, labels, list(sample.chunks), contents),
        all_images=every,
        sample=sample,
        measurings=blueprint.measurings,
        members={surrogate.name: surrogate.members for surrogate in blueprint.surrogates},
        seed=experiment.seed,
        eps=attack.eps,
        norm=attack.norm,
        pass_rows=experiment.compute.pass_rows or PASS_ROWS[device],
        device=device,
        threads=threads,
        most_networks=experiment.compute.networks,
        patience=patience,
    )


def measure_all(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Measures what is missing; returns the number of chunks, each counted for every table. Raises RunFailed."""
    sample, measurings, speeds = blueprint.sample, blueprint.measurings, Speeds(blueprint)
    rows = sample.rows
    if not measurings:
        return 0

    def work(missing: Missing, patience: float) -> Iterator[tuple[str, int, int]]:
        job = reasons_job(blueprint, worker.device, worker.threads, patience)
        lacking = cast("Mapping[str, Mapping[int, tuple[int, ...]]]", missing)  # as `JointTable.missing` returns them
        items = [
            ReasonsItem(number=number, chunk=chunk, lacking=json.dumps(positions))
            for chunk in range(len(rows))
            for number, one in enumerate(measurings)
            if (positions := lacking.get(one.joint.folder, {}).get(chunk))
        ]
        await_node(worker, progress.say)
        workers = workers_that_fit(worker)
        with progress.stage("reasons", sum(rows[item["chunk"]] for item in items), "images", workers) as bar:
            for done in run_pipeline(items, read_both, job, Measurer, worker, workers, bar.took):
                one, chunk, made = measurings[done["number"]], done["chunk"], json.loads(done["made"])
                bar.advance(rows[chunk], one.surrogate)
                for position, seconds in made:
                    kind, members = kind_of(one, position, job.members)
                    speeds.note(kind, members, worker.device, rows[chunk], seconds)
                yield one.joint.folder, chunk, len(made)

    tables = [one.joint for one in measurings]
    with saving(speeds):
        made = fill(blueprint.store, tables, rows, progress.say, work, blueprint.experiment.compute.patience)
    listing = blueprint.store.listing()
    if not any(table.unfinished(listing) for table in tables):
        blueprint.store.delete_folder(UNDER_WAY)  # its folders are empty
    return made


def read_both(job: ReasonsJob, item: ReasonsItem) -> ReasonsItem:
    """Adds the images of a chunk of the sample, clean and attacked. Raises ValueError if the latter are damaged."""
    attacked, chunk = job.measurings[item["number"]].attacked, item["chunk"]
    read: ReasonsItem = {**item, "clean": job.images.read(chunk)}
    if attacked is None:
        return read
    wanted = job.sample.positions[slice(job.sample.chunks[chunk].start, job.sample.chunks[chunk].stop)]
    found = []
    for number, rows in enumerate(job.all_images.chunks):
        own = [position - rows.start for position in wanted if position in rows]
        if own:
            found.append(crafted_chunk(job.store, attacked, number, job.all_images.ids_of(number))[own])
    return {**read, "attacked": np.concatenate(found)}


class Measurer:
    """Measures chunk after chunk.

    Args:
        job: what is measured.
        networks: hold the networks; those of the job unless given.
    """

    def __init__(self, job: ReasonsJob, networks: LoadedNetworks | None = None) -> None:
        self.job, self.networks = job, networks or LoadedNetworks(job.loader, job.device, job.most_networks)
        self._chunk, self._known = -1, dict[tuple[str, str], Passed]()

    def known_of(self, chunk: int) -> dict[tuple[str, str], Passed]:
        """What witnesses and targets make of a chunk at (network, point), the same for all surrogates.

        It is forgotten with the chunk: of images of 224 pixels a gradient takes 0.6 MB.
        """
        if chunk != self._chunk:
            self._chunk, self._known = chunk, {}
        return self._known

    def __call__(self, item: ReasonsItem) -> MeasuredChunk:
        """Measures all that is missing on one chunk, and commits what succeeded, in one file.

        What fails is recorded beside its own table; the run goes on with the others.
        """
        job, chunk, one = self.job, item["chunk"], self.job.measurings[item["number"]]
        ids, labels = job.images.ids_of(chunk), job.images.labels_of(chunk)
        shared = {"image_id": ids, "label": pa.array(labels, pa.int64())}
        on_chunk = self.on_chunk(item)
        found: dict[int, pa.Table] = {}
        made = []
        for position in json.loads(item["lacking"]):
            other, table = one.measured[position]
            try:
                start = time.monotonic()
                found[position] = pa.table(shared | _as_arrow(on_chunk.measured(other)))
                made.append((position, time.monotonic() - start))
            except (FloatingPointError, NoGradient, RuntimeError) as problem:
                is_final = not GUARD.meet(problem) and not isinstance(problem, RuntimeError)
                table.write_failure(job.store, chunk, f"chunk {chunk}: {problem}", is_final)
        TURNS.end()
        if found:
            one.joint.write_chunk(job.store, chunk, found)
        return MeasuredChunk(number=item["number"], chunk=chunk, made=json.dumps(made))

    def on_chunk(self, item: ReasonsItem) -> "OnChunk":
        """What is measured on a chunk that was read, table by table."""
        return OnChunk(self, self.job.measurings[item["number"]], item)


class OnChunk:
    """What is measured of one surrogate, or of soft labels, on one chunk: what the surrogate makes of it, once."""

    def __init__(self, measurer: Measurer, one: Measuring, item: ReasonsItem) -> None:
        self.measurer, self.one, self.item = measurer, one, item
        self.job, self.networks = measurer.job, measurer.networks
        self.ids = self.job.images.ids_of(item["chunk"])
        self.labels_B = torch.tensor(self.job.images.labels_of(item["chunk"]), device=self.job.device)

    def measured(self, other: str) -> Columns:
        """The columns of one table. Raises what the measures raise."""
        if self.one.surrogate == SOFT:
            return self._soft(other)
        if other == SELF:
            network, whose, rows = self._surrogate
            at = self._at
            with watched(network):
                return own_reasons(network, self._batch, at, whose=whose, pass_rows=rows)
        return compared_reasons(self._batch, self._at, {name: self._its(other, name) for name in self._at})

    def _its(self, other: str, name: str) -> Passed:
        """What another network makes of the points of this name; at clean and random points it is found once."""
        known = self.measurer.known_of(self.item["chunk"])
        if (found := known.get((other, name))) is not None:
            return found
        network = self.networks.mean_of([other])
        with watched(network):
            found = passes_of_other(network, self._batch, name, whose=other, pass_rows=self.job.pass_rows)
        if name != "attacked":
            known[other, name] = found
        return found

    def _soft(self, witness: str) -> Columns:
        network, clean_BCHW = self.networks.mean_of([witness]), self._pixels(self.item["clean"])
        with watched(network):
            passed = losses(network, clean_BCHW, self.labels_B, self.ids, whose=witness, pass_rows=self.job.pass_rows)
        return softness(passed.logits_BK, self.labels_B, self.one.temperatures[witness])

    @property
    def _surrogate(self) -> tuple[nn.Module, str, int]:
        """The surrogate as it predicts, its name, and the rows of a pass: an ensemble's members share the memory."""
        members = self.job.members[self.one.surrogate]
        return self.networks.mean_of(members), self.one.surrogate, max(1, self.job.pass_rows // len(members))

    @cached_property
    def _batch(self) -> Batch:
        clean_BCHW, attacked_BCHW = (self._pixels(self.item[name]) for name in ("clean", "attacked"))
        job = self.job
        return Batch(clean_BCHW, attacked_BCHW, self.labels_B, self.ids, job.seed, job.eps, job.norm)

    @cached_property
    def _at(self) -> dict[str, Passed]:
        """What the surrogate makes of all points. Raises what `gradients` raises, each time that it is asked for."""
        network, whose, rows = self._surrogate
        with watched(network):
            return passes_at(network, self._batch, whose=whose, pass_rows=rows)

    def _pixels(self, pixels: Pixels) -> torch.Tensor:
        return sent(pixels, self.job.device).to(torch.float32) / 255


def _as_arrow(columns: Columns) -> dict[str, pa.Array]:
    """Columns of a table: NaN, a blank, becomes an empty cell, since no number in a table is other than finite.

    Raises FloatingPointError for a number that is infinite.
    """
    found = {}
    for name, values_B in columns.items():
        values = values_B.cpu().numpy()
        if values.dtype != np.bool_ and np.isinf(values).any():
            raise FloatingPointError(f"{name} is infinite for {int(np.isinf(values).sum())} images")
        found[name] = pa.array(values, from_pandas=True)
    return found


def kind_of(one: Measuring, position: int, members: Mapping[str, tuple[str, ...]]) -> tuple[Kind, tuple[str, ...]]:
    """Of what one table is a measurement, as speeds tell it apart, and whose."""
    other = one.measured[position].other
    if one.surrogate == SOFT:
        return "prediction", (other,)
    return ("reasons", members[one.surrogate]) if other == SELF else ("comparison", (other,))
