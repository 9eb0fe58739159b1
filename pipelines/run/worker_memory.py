"""How much memory a worker of each stage takes, and whether the machine, or its GPU, has that much."""

from collections.abc import Sequence
from dataclasses import dataclass

from align_core.cpus import usable_cpus
from pipelines.experiment.config import ComputeConfig, StageConfig
from pipelines.run.machine import gpu_memory, machine_memory
from pipelines.run.main_memory import PROCESS_BESIDE_A_GPU, main_needs_of
from pipelines.run.sizes import size_text
from pipelines.run.stage_memory import BATCH, Device, Need, needs_of
from pipelines.stages.blueprint import Blueprint

_PROCESS = 550 * 10**6  # of Python, torch, timm and Ray, or of CUDA's context on a GPU
_MARGIN = 1.2  # for what operations hold for themselves, and the C library of what was freed
_USABLE = 0.95  # of a machine; beyond this share Ray ends workers

_ROWS = {
    "compute.pass": ("in a pass", "tables that were crafted with another one are then made anew"),
    "compute.chunk": ("in a chunk", "what was made with other chunks is then made anew"),
}
"""Of a key that bounds how many images are worked on at once: how that is said, and what follows from a change."""
_OF_A_MODEL = ("in a batch", "the model is then trained anew")  # of models.NAME.train.batch_size


def _said_of(key: str) -> tuple[str, str]:
    """How the key that bounds the images that are worked on at once is said, and what follows from a change of it."""
    if key.endswith(BATCH):
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
        stage: `craft`, `evaluate`, `reasons` or `align`.
        of: the surrogate or network; `main memory` for what a GPU's worker takes of that.
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

    On CPUs it is compared with the memory of this machine, on GPUs with that of the smallest one of this machine; what
    a GPU's worker takes of the machine's memory comes last.
    """
    compute = blueprint.experiment.compute
    cards = gpu_memory() if compute.accelerator != "cpu" else []
    device: Device = "cuda" if cards or compute.accelerator == "cuda" else "cpu"
    needs = needs_of(blueprint, device)
    found = [_most(stage, own, _room(compute, stage, device, cards), _PROCESS) for stage, own in needs.items()]
    if device == "cuda":
        for stage, need in main_needs_of(blueprint, needs.keys()).items():
            found.append(_most(stage, [need], _room_beside_gpus(compute, stage, cards), PROCESS_BESIDE_A_GPU))
    return found


def _most(stage: str, needed: Sequence[Need], room: Room, process: int) -> WorkerMemory:
    """That with the largest sum, or the first that is unknown."""

    def sum_of(own: Need) -> float:
        return float("inf") if own.fixed is None else own.fixed + own.images * own.per_image

    own = max(needed, key=sum_of)
    taken = None if own.fixed is None else int(_MARGIN * sum_of(own)) + process
    per_image = int(_MARGIN * own.per_image)
    return WorkerMemory(stage, own.of, own.key, own.images, taken, per_image, room, own.divided)


def _room(compute: ComputeConfig, stage: str, device: Device, cards: Sequence[int]) -> Room:
    own, key = _workers_of(compute, stage)
    if device == "cuda":
        return Room("a GPU", min(cards, default=None), int(1 // min(1, own.gpus or 1)), key)
    return Room("this machine", machine_memory(), _beside_each_other(compute, own), key)


def _room_beside_gpus(compute: ComputeConfig, stage: str, cards: Sequence[int]) -> Room:
    """This machine's memory, which the workers of its GPUs share; that of another machine is not known."""
    own, key = _workers_of(compute, stage)
    if not cards:
        return Room("the machine of a GPU", None, 1, key)
    workers = min(_beside_each_other(compute, own), int(len(cards) // (own.gpus or 1)))
    return Room("this machine", machine_memory(), max(1, workers), key)


def _workers_of(compute: ComputeConfig, stage: str) -> tuple[StageConfig, str]:
    """The settings of the workers of a stage, and the key that says how many there are. Reasons have crafting's."""
    stage = "craft" if stage == "reasons" else stage
    own: StageConfig = getattr(compute, stage, StageConfig())
    return own, f"compute.{stage}.workers" if own.workers else "compute.workers"


def _beside_each_other(compute: ComputeConfig, own: StageConfig) -> int:
    """How many workers a machine with the CPUs of this one has."""
    return max(1, min(own.workers or compute.workers, usable_cpus() // compute.threads))
