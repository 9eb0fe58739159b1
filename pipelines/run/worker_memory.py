"""How much memory a worker of each stage takes, and whether the machine, or its GPU, has that much.

The figures of each network were measured when it was inspected (`align_core.peak_memory`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from align_core.align_config import AlignConfig, training_of, training_on_labels
from align_core.attacks.config import PASS_ROWS, AttackConfig
from align_core.attacks.cost import copies_of, points_of
from align_core.attacks.foreign_config import ForeignConfig
from align_core.cpus import usable_cpus
from align_core.memory import Memory, PassMemory
from pipelines.compute.networks import HELD_BY_CRAFTERS
from pipelines.experiment.config import ComputeConfig, StageConfig
from pipelines.run.machine import gpu_memory, machine_memory
from pipelines.run.sizes import size_text
from pipelines.stages.blueprint import Blueprint

Device = Literal["cpu", "cuda"]

_PROCESS = 550 * 10**6  # of Python, torch, timm and Ray, or of CUDA's context on a GPU
_MARGIN = 1.2  # for what operations hold for themselves, and the C library of what was freed
_USABLE = 0.95  # of a machine; beyond this share Ray ends workers

_ROWS = {
    "compute.pass": ("in a pass", "tables that were crafted with another one are then made anew"),
    "compute.chunk": ("in a chunk", "what was made with other chunks is then made anew"),
}
"""Of a key that bounds how many images are worked on at once: how that is said, and what follows from a change."""
_BATCH = "align.batch_size"  # of all surrogates, and, after `variants.NAME.`, of a variant that has its own
_OF_A_MODEL = ("in a batch", "the model is then trained anew")  # of models.NAME.train.batch_size


def _said_of(key: str) -> tuple[str, str]:
    """How the key that bounds the images that are worked on at once is said, and what follows from a change of it."""
    if key.endswith(_BATCH):
        section = key.removesuffix("batch_size")
        return "in a worker's batch", f"or raise {section}accumulate or {section}workers, which divide it"
    return _ROWS.get(key, _OF_A_MODEL)


@dataclass(frozen=True)
class Room:
    """The memory that workers share.

    Attributes:
        where: `this machine` or `a GPU`. bytes: that it has; None where this machine cannot tell.
        workers: how many share it.
        key: the setting that says how many workers there are.
    """

    where: str
    bytes: int | None
    workers: int
    key: str = "compute.workers"


@dataclass(frozen=True)
class WorkerMemory:
    """What one worker of a stage takes, at the network for which it takes the most.

    Attributes:
        stage: `craft`, `evaluate` or `align`.
        of: the surrogate or network.
        key: the setting that bounds how many images are worked on at once. images: that number.
        divided: the number by which the setting is divided, as a batch is among workers and parts.
        bytes: that the worker takes; None where a figure that this needs is not known.
        per_image: how many of them each image takes.
        room: the memory that there is.
    """

    stage: str
    of: str
    key: str
    images: int
    bytes: int | None
    per_image: int
    room: Room
    divided: int = 1

    @property
    def line(self) -> str:
        """What `witness plan` prints of the stage."""
        if self.bytes is None:
            return f"{self.stage} unknown"
        how, _ = _said_of(self.key)
        return f"{self.stage} {size_text(self.bytes)} a worker ({self.of}, {self.images:,} images {how})"

    def warning(self) -> str | None:
        """What is said, and how it is mended, where it does not fit; None where it does, or nobody can tell."""
        room, there = self.room, self.room.bytes
        if self.bytes is None or there is None or self.bytes <= (share := there * _USABLE / room.workers):
            return None
        how, follows = _said_of(self.key)
        workers = f", and {room.workers} share it" if room.workers > 1 else ""
        fitting = int((share - (self.bytes - self.images * self.per_image)) // max(1, self.per_image))
        most = f"{self.key} of at most {fitting * self.divided:,} fits"
        mend = f"{most} ({follows})" if fitting > 0 else f"no {self.key} fits"
        fewer = f"; so do fewer {room.key}" if room.workers > 1 and self.bytes <= there * _USABLE else ""
        return (
            f"{self.key}: a worker of the stage {self.stage} takes {size_text(self.bytes)} with {self.images:,} images "
            f"{how} ({self.of}); {room.where} has {size_text(there)}{workers}: {mend}{fewer}"
        )


def worker_memory(blueprint: Blueprint) -> list[WorkerMemory]:
    """The most that a worker of each stage takes, of all that the experiment makes, whether it is there already or not.

    On CPUs it is compared with the memory of this machine, on GPUs with that of the smallest one of this machine.
    """
    compute = blueprint.experiment.compute
    cards = gpu_memory() if compute.accelerator != "cpu" else []
    device: Device = "cuda" if cards or compute.accelerator == "cuda" else "cpu"
    needs = [_crafting(blueprint, device), _evaluating(blueprint), _aligning(blueprint)]
    return [_most(stage, needed, _room(compute, stage, device, cards)) for stage, needed in needs if needed]


@dataclass(frozen=True)
class _Need:
    of: str
    key: str
    images: int
    fixed: int | None
    per_image: int = 0
    divided: int = 1


def _most(stage: str, needed: Sequence[_Need], room: Room) -> WorkerMemory:
    """That with the largest sum, or the first that is unknown."""

    def sum_of(own: _Need) -> float:
        return float("inf") if own.fixed is None else own.fixed + own.images * own.per_image

    own = max(needed, key=sum_of)
    taken = None if own.fixed is None else int(_MARGIN * sum_of(own)) + _PROCESS
    per_image = int(_MARGIN * own.per_image)
    return WorkerMemory(stage, own.of, own.key, own.images, taken, per_image, room, own.divided)


def _crafting(blueprint: Blueprint, device: Device) -> tuple[str, list[_Need]]:
    compute, surrogates = blueprint.experiment.compute, blueprint.surrogates
    pixels, chunk = _pixels(blueprint), max(blueprint.rows)
    held = _largest(blueprint, (name for own in surrogates for name in own.members), HELD_BY_CRAFTERS)
    found = []
    for surrogate in surrogates:
        memories = [blueprint.networks[name].memory for name in surrogate.seen_at_once]
        passes = [None if own is None else own.gradient for own in memories]
        weights = _largest(blueprint, surrogate.members, None)
        for attack in blueprint.experiment.attacks.values():
            key, rows, copies = _rows_of(attack, compute.pass_rows or PASS_ROWS[device], chunk)
            if held is None or weights is None or None in passes:
                found.append(_Need(surrogate.name, key, rows, None))
                continue
            gradient = _sum_of(own for own in passes if own is not None)
            # The chunk, clean and attacked, of 8 bits; points and gradients of all copies of a batch.
            beside = 2 * chunk * pixels + 2 * 4 * pixels * copies
            found.append(
                _Need(surrogate.name, key, rows, max(held, weights) + beside + gradient.fixed, gradient.per_image)
            )
    return "craft", found


def _rows_of(attack: AttackConfig | ForeignConfig, pass_rows: int, chunk: int) -> tuple[str, int, int]:
    """The key that bounds a pass, its rows, and the rows of a batch, of which some passes may be."""
    if isinstance(attack, ForeignConfig):
        return "compute.chunk", chunk, chunk
    copies = points_of(attack.rule) * copies_of(attack.views)
    batch = copies * min(chunk, max(1, pass_rows // copies))
    return "compute.pass", min(batch, pass_rows), batch


def _evaluating(blueprint: Blueprint) -> tuple[str, list[_Need]]:
    chunk, pixels = max(blueprint.rows), _pixels(blueprint)
    names = {name for one in blueprint.evaluations for own in one.predictions for name in own.members}
    held = _largest(blueprint, names, blueprint.experiment.compute.networks)
    found = []
    for name in sorted(names):
        memory = blueprint.networks[name].memory
        if held is None or memory is None:
            found.append(_Need(name, "compute.chunk", chunk, None))
        else:
            own = memory.predicting
            found.append(_Need(name, "compute.chunk", chunk, held + own.fixed, own.per_image + pixels))
    return "evaluate", found


def _aligning(blueprint: Blueprint) -> tuple[str, list[_Need]]:
    images, models = len(blueprint.inspected.manifests["train"]), blueprint.experiment.models
    variants = blueprint.experiment.variants.items()
    keys = {name: f"variants.{name}.{_BATCH}" for name, own in variants if "batch_size" in own.align}
    makings = [
        (own.name, keys.get(own.series, _BATCH), own.source, own.witnesses, own.align)
        for own in blueprint.surrogates
        if own.align is not None
    ]
    makings += [
        (name, f"models.{name}.train.batch_size", name, (), training_on_labels(own.train))
        for name, own in models.items()
        if own.train
    ]
    return "align", [_step(blueprint, *making, images) for making in makings]


def _step(
    blueprint: Blueprint, name: str, key: str, source: str, witnesses: Sequence[str], align: AlignConfig, images: int
) -> _Need:
    """A step, with the witnesses in memory and the network that it starts from beside its copy."""
    rows, own = training_of(align, images).rows, blueprint.networks[source].memory
    others = [blueprint.networks[witness].memory for witness in witnesses]
    if own is None or own.training is None or None in others:
        return _Need(name, key, rows, None)
    known = [other for other in others if other is not None]
    witness = max((other.predicting for other in known), key=lambda one: one.per_image, default=PassMemory(0, 0))
    weights = 2 * own.weights + sum(other.weights for other in known)
    fixed = weights + own.training.fixed + witness.fixed
    per_image = own.training.per_image + witness.per_image
    return _Need(name, key, rows, fixed, per_image, align.workers * align.accumulate)


def _sum_of(passes: Iterable[PassMemory]) -> PassMemory:
    """An ensemble's members hold what they need at the same time."""
    several = list(passes)
    return PassMemory(sum(own.fixed for own in several), sum(own.per_image for own in several))


def _largest(blueprint: Blueprint, names: Iterable[str], most: int | None) -> int | None:
    """Bytes of the weights of the largest of these networks, of at most so many; None where one is not known."""
    memories: list[Memory | None] = [blueprint.networks[name].memory for name in dict.fromkeys(names)]
    if None in memories:
        return None
    return sum(sorted((own.weights for own in memories if own is not None), reverse=True)[:most])


def _pixels(blueprint: Blueprint) -> int:
    channels, height, width = blueprint.inspected.shape
    return channels * height * width


def _room(compute: ComputeConfig, stage: str, device: Device, cards: Sequence[int]) -> Room:
    own: StageConfig = getattr(compute, stage, StageConfig())
    key = f"compute.{stage}.workers" if own.workers else "compute.workers"
    if device == "cuda":
        return Room("a GPU", min(cards, default=None), int(1 // min(1, own.gpus or 1)), key)
    workers = min(own.workers or compute.workers, usable_cpus() // compute.threads)
    return Room("this machine", machine_memory(), max(1, workers), key)
