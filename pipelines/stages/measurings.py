"""The tables of reasons: what is measured of which surrogate, on which sample of the images, and what determines it.

Of one chunk of the sample, all that is measured of a surrogate is made together and is one file until the tables are
finished (see `pipelines.storage.joint_table`). Nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from align_core.images import chunked
from align_core.images.selection import stratified
from align_core.losses.known import LOSSES, read_losses
from pipelines.experiment.config import Experiment
from pipelines.experiment.surrogates import Surrogate
from pipelines.stages.cells import SELF
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.joint_table import JointFolder, JointTable

if TYPE_CHECKING:
    from pipelines.stages.blueprint import Blueprint

UNDER_WAY = ".reasons"
"""The folder of the store that holds reasons whose tables are not finished."""
SOFT = "@soft"
"""What stands in place of a surrogate where the soft labels of the witnesses are measured."""
OWN_GRADIENTS = 70
"""What all reasons of a surrogate cost for each image in gradients of it, as measured on a ResNet-20 for CIFAR-10."""
COMPARED_GRADIENTS = 1.1
"""What comparing a surrogate with another network costs, in gradients of that one, where there are many surrogates."""
_SHARED = ("image_id", "label")


class Measured(NamedTuple):
    """One table of reasons.

    Attributes:
        other: the witness or target that a surrogate is compared with; `@self` for what needs no other network; of soft
            labels, the witness that gives them.
        table: image_id, label, and a column for each measure and point.
    """

    other: str
    table: ChunkedTable


@dataclass(frozen=True)
class Measuring:
    """All that is measured together.

    Attributes:
        surrogate: its name, or `@soft`.
        attacked: the table of its adversarial images; None for soft labels.
        measured: the tables.
        temperatures: of soft labels, those of each witness.
    """

    surrogate: str
    attacked: ChunkedTable | None
    measured: tuple[Measured, ...]
    temperatures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @cached_property
    def joint(self) -> JointTable:
        """The same tables, in this order, while they are filled."""
        tables = tuple(own.table for own in self.measured)
        folder = JointFolder(f"{UNDER_WAY}/{self.surrogate}", (tables,), parent=f"reasons/{self.surrogate}")
        return JointTable(folder, 0, _SHARED)


@dataclass(frozen=True)
class Sample:
    """The test images on which reasons are measured: their positions among all, and those of each chunk among these."""

    positions: Sequence[int]
    chunks: Sequence[range]

    @property
    def rows(self) -> list[int]:
        """Number of images in each chunk."""
        return [len(chunk) for chunk in self.chunks]


def attack_of_reasons(experiment: Experiment) -> str:
    """The attack whose images are the attacked points."""
    assert experiment.reasons is not None
    return experiment.reasons.attack or next(iter(experiment.attacks))


def sample_of(blueprint: "Blueprint") -> Sample:
    """The sample, stratified by class and drawn by the experiment's seed; an empty one where no reasons are asked for.

    Its chunks are as large as those of all images, so that passes are as large as crafting's.
    """
    experiment, manifest = blueprint.experiment, blueprint.inspected.manifests["test"]
    if experiment.reasons is None:
        return Sample([], [])
    labels, size = manifest.labels.tolist(), experiment.reasons.sample
    positions = stratified(range(len(manifest)), manifest.ids, labels, size, experiment.seed)
    return Sample(positions, chunked([manifest.ids[own] for own in positions], experiment.compute.chunk))


def measurings_of(blueprint: "Blueprint") -> list[Measuring]:
    """Everything that is measured: of each surrogate whose adversarial images can be there, then the soft labels.

    A witness or target whose predictions cannot be made is left out: it would fail here for the same reason.
    """
    if blueprint.experiment.reasons is None:
        return []
    attack, adversarial = attack_of_reasons(blueprint.experiment), blueprint.all_adversarial()
    found = []
    for surrogate in blueprint.surrogates:
        attacked = adversarial.get((surrogate.name, attack))
        if attacked is not None:
            own = [SELF, *_others(blueprint, surrogate, attack)]
            measured = tuple(Measured(other, _table(blueprint, surrogate, attacked, other)) for other in own)
            found.append(Measuring(surrogate.name, attacked, measured))
    temperatures = _temperatures(blueprint)
    if temperatures:
        soft = tuple(Measured(name, _soft_table(blueprint, name, own)) for name, own in temperatures.items())
        found.append(Measuring(SOFT, None, soft, temperatures))
    return found


def witnesses_compared(blueprint: "Blueprint", surrogate: Surrogate) -> list[str]:
    """The experiment's witnesses and the surrogate's own, but not a witness with itself."""
    names = dict.fromkeys((*blueprint.experiment.witnesses, *surrogate.witnesses))
    return [name for name in names if surrogate.members != (name,)]


def temperature_of(surrogate: Surrogate) -> float | None:
    """The temperature of the soft labels that a surrogate is aligned to; None where its losses have none."""
    align = surrogate.align
    if align is None or not align.weight or not surrogate.witnesses:
        return None
    return align.temperature if any(LOSSES[own["name"]].tempered for own in read_losses(align.loss)) else None


def _others(blueprint: "Blueprint", surrogate: Surrogate, attack: str) -> list[str]:
    there, broken = blueprint.clean(), blueprint.broken
    targets = [
        target
        for target in surrogate.unseen(blueprint.targets)
        if blueprint.cell(surrogate.name, attack, target).table.folder not in broken
    ]
    names = dict.fromkeys((*witnesses_compared(blueprint, surrogate), *targets))
    return [name for name in names if name in there]


def _table(blueprint: "Blueprint", surrogate: Surrogate, attacked: ChunkedTable, other: str) -> ChunkedTable:
    networks = [surrogate.members, *([] if other == SELF else [(other,)])]
    inputs = {"attacked": attacked.fingerprint}
    return blueprint.table_of_reasons(f"{surrogate.name}/{other}", networks, inputs)


def _soft_table(blueprint: "Blueprint", witness: str, temperatures: Sequence[float]) -> ChunkedTable:
    return blueprint.table_of_reasons(f"{SOFT}/{witness}", [(witness,)], {"temperatures": list(temperatures)})


def _temperatures(blueprint: "Blueprint") -> dict[str, tuple[float, ...]]:
    """Of each witness that gives soft labels, the temperatures at which a surrogate here is aligned to it."""
    found: dict[str, set[float]] = {}
    for surrogate in blueprint.surrogates:
        temperature = temperature_of(surrogate)
        for name in surrogate.witnesses if temperature is not None else ():
            if name in blueprint.clean():
                found.setdefault(name, set()).add(float(temperature or 0))
    return {name: tuple(sorted(own)) for name, own in found.items()}
