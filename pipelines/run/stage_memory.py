"""What a worker of each stage holds where it computes: in the memory of its GPU or, without one, of its machine.

The figures of each network were measured when it was inspected (`align_core.peak_memory`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from align_core.align_config import AlignConfig, training_of, training_on_labels
from align_core.attacks.config import PASS_ROWS, AttackConfig
from align_core.attacks.cost import copies_of, points_of
from align_core.attacks.foreign_config import ForeignConfig
from align_core.memory import Memory, PassMemory
from pipelines.compute.networks import HELD_BY_CRAFTERS
from pipelines.experiment.surrogates import Surrogate
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.stages.measurings import SOFT

Device = Literal["cpu", "cuda"]

BATCH = "align.batch_size"
"""Of all surrogates, and, after `variants.NAME.`, of a variant that has its own."""
_PASS, _CHUNK = "compute.pass", "compute.chunk"

_FLOAT = 4  # bytes
_POINTS_OF_REASONS = 12
"""So many times its pixels, as floats, a worker of the stage `reasons` holds of an image of the chunk beside the pass:
the points, gradients at them, and those of an ascent."""


@dataclass(frozen=True)
class Need:
    """What a worker needs for one network or surrogate.

    Attributes:
        of: which one.
        key: the setting that bounds how many images are worked on at once. images: that number.
        fixed: bytes, however many images there are; None where a figure that this needs is not known.
        per_image: bytes for each of them.
        divided: the number by which the setting is divided, as a batch is among workers and parts.
    """

    of: str
    key: str
    images: int
    fixed: int | None
    per_image: int = 0
    divided: int = 1


def needs_of(blueprint: Blueprint, device: Device) -> dict[str, list[Need]]:
    """Of each stage that has work at all, what it needs for each surrogate and network, made already or not."""
    memories = {name: own.memory and own.memory.on(device) for name, own in blueprint.networks.items()}
    counting = _Counting(blueprint, memories, device)
    stages = {
        "craft": counting.crafting(),
        "evaluate": counting.evaluating(),
        "reasons": counting.measuring(),
        "align": counting.aligning(),
    }
    return {stage: needs for stage, needs in stages.items() if needs}


def pixels_of(blueprint: Blueprint) -> int:
    """The values of one test image, over all channels: as 8-bit pixels, so many bytes."""
    channels, height, width = blueprint.inspected.shape
    return channels * height * width


@dataclass(frozen=True)
class _Counting:
    """Counts the needs of an experiment, with what its networks take in memory, by name."""

    blueprint: Blueprint
    memories: Mapping[str, Memory | None]
    device: Device

    @property
    def _pass_rows(self) -> int:
        return self.blueprint.experiment.compute.pass_rows or PASS_ROWS[self.device]

    def crafting(self) -> list[Need]:
        """A pass of each surrogate under each attack, and the batch around it."""
        surrogates, attacks = self.blueprint.surrogates, self.blueprint.experiment.attacks
        held = self._largest((name for own in surrogates for name in own.members), HELD_BY_CRAFTERS)
        return [self._crafting(surrogate, attack, held) for surrogate in surrogates for attack in attacks.values()]

    def _crafting(self, surrogate: Surrogate, attack: AttackConfig | ForeignConfig, held: int | None) -> Need:
        chunk, pixels = max(self.blueprint.rows), pixels_of(self.blueprint)
        key, rows, copies = self._rows_of(attack, chunk)
        weights = self._largest(surrogate.members, None)
        gradient = _sum_of(
            None if own is None else own.gradient for own in map(self.memories.get, surrogate.seen_at_once)
        )
        if held is None or weights is None or gradient is None:
            return Need(surrogate.name, key, rows, None)
        # The chunk, clean and attacked, of 8 bits; points and gradients of all copies of a batch.
        beside = 2 * chunk * pixels + 2 * _FLOAT * pixels * copies
        return Need(surrogate.name, key, rows, max(held, weights) + beside + gradient.fixed, gradient.per_image)

    def _rows_of(self, attack: AttackConfig | ForeignConfig, chunk: int) -> tuple[str, int, int]:
        """The key that bounds a pass, its rows, and the rows of a batch, of which some passes may be."""
        if isinstance(attack, ForeignConfig):
            return _CHUNK, chunk, chunk
        copies = points_of(attack.rule) * copies_of(attack.views)
        batch = copies * min(chunk, max(1, self._pass_rows // copies))
        return _PASS, min(batch, self._pass_rows), batch

    def evaluating(self) -> list[Need]:
        """A chunk through each network that predicts."""
        chunk, pixels = max(self.blueprint.rows), pixels_of(self.blueprint)
        names = {name for one in self.blueprint.evaluations for own in one.predictions for name in own.members}
        held = self._largest(names, self.blueprint.experiment.compute.networks)
        found = []
        for name in sorted(names):
            memory = self.memories[name]
            if held is None or memory is None:
                found.append(Need(name, _CHUNK, chunk, None))
            else:
                own = memory.predicting
                found.append(Need(name, _CHUNK, chunk, held + own.fixed, own.per_image + pixels))
        return found

    def measuring(self) -> list[Need]:
        """A pass of the reasons through each surrogate and each network that one is compared with."""
        blueprint = self.blueprint
        surrogates = {one.surrogate: blueprint.by_name[one.surrogate].members for one in blueprint.measurings
                      if one.surrogate != SOFT}  # fmt: skip
        others = {own.other for one in blueprint.measurings for own in one.measured} - {SELF}
        networks = {**surrogates, **{name: (name,) for name in sorted(others) if name not in surrogates}}
        names = [name for members in networks.values() for name in members]
        held, most = self._largest(names, blueprint.experiment.compute.networks), max(blueprint.sample.rows, default=0)
        # What networks make of the clean images is kept until all surrogates have been compared with them.
        beside = most * _FLOAT * pixels_of(blueprint) * (_POINTS_OF_REASONS + len(others))
        found = []
        for name, members in networks.items():
            rows = min(most, max(1, self._pass_rows // len(members)))
            weights = self._largest(members, None)
            own = _sum_of(None if memory is None else memory.reasons for memory in map(self.memories.get, members))
            if held is None or weights is None or own is None:
                found.append(Need(name, _PASS, rows, None))
            else:
                found.append(Need(name, _PASS, rows, max(held, weights) + beside + own.fixed, own.per_image))
        return found

    def aligning(self) -> list[Need]:
        """A step of each fine-tune."""
        experiment = self.blueprint.experiment
        keys = {
            name: f"variants.{name}.{BATCH}" for name, own in experiment.variants.items() if "batch_size" in own.align
        }
        makings = [
            (own.name, keys.get(own.series, BATCH), own.source, own.witnesses, own.align)
            for own in self.blueprint.surrogates
            if own.align is not None
        ]
        makings += [
            (name, f"models.{name}.train.batch_size", name, (), training_on_labels(own.train))
            for name, own in experiment.models.items()
            if own.train
        ]
        return [self._step(*making) for making in makings]

    def _step(self, name: str, key: str, source: str, witnesses: Sequence[str], align: AlignConfig) -> Need:
        """A step, with the witnesses in memory and the network that it starts from beside its copy."""
        images = len(self.blueprint.inspected.manifests["train"])
        rows, own = training_of(align, images).rows, self.memories[source]
        others = [self.memories[witness] for witness in witnesses]
        if own is None or own.training is None or None in others:
            return Need(name, key, rows, None)
        known = [other for other in others if other is not None]
        witness = max((other.predicting for other in known), key=lambda one: one.per_image, default=PassMemory(0, 0))
        weights = 2 * own.weights + sum(other.weights for other in known)
        fixed = weights + own.training.fixed + witness.fixed
        per_image = own.training.per_image + witness.per_image
        return Need(name, key, rows, fixed, per_image, align.workers * align.accumulate)

    def _largest(self, names: Iterable[str], most: int | None) -> int | None:
        """Bytes of the weights of the largest of these networks, of at most so many; None where one is not known."""
        memories = [self.memories[name] for name in dict.fromkeys(names)]
        if None in memories:
            return None
        return sum(sorted((own.weights for own in memories if own is not None), reverse=True)[:most])


def _sum_of(passes: Iterable[PassMemory | None]) -> PassMemory | None:
    """An ensemble's members hold what they need at the same time; None where one of them is not known."""
    several = list(passes)
    known = [own for own in several if own is not None]
    if len(known) < len(several):
        return None
    return PassMemory(sum(own.fixed for own in known), sum(own.per_image for own in known))
