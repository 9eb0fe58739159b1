"""Tries every attack whose code is not ours, before any work is done, and reads the code of the user's own.

Of all attacks it says whose radius is not of whole 8-bit levels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from align_core.attacks import ForeignConfig
from align_core.attacks.lengths import lost_to_8_bits
from align_core.errors import InputError
from pipelines.experiment.config import Experiment
from pipelines.experiment.factories import note_code, own_attacks
from pipelines.experiment.factory_code import Code, factory_code
from pipelines.stages.known import Known
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store, fingerprint_of


@dataclass
class InspectedAttacks:
    """What was found out about the attacks of an experiment.

    Attributes:
        code: name of an attack -> its code, for those that are the user's own.
        made: name of an attack -> a hash of its images, for images that were made elsewhere.
        notes: what a user should know before hours are spent, a sentence each.
        unsaved: files by path in the store that have still to be written.
    """

    code: dict[str, Code] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unsaved: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Passed:
    """An attack that can be run, as far as is known beforehand."""

    passed: bool

    def __post_init__(self) -> None:
        if self.passed is not True:
            raise ValueError("not what a check found out")


def inspect_attacks(experiment: Experiment, store: Store, shape: tuple[int, int, int]) -> InspectedAttacks:
    """Checks every attack whose code is not ours on images of this shape, and notes each radius that 8 bits cut.

    Raises InputError, naming the attack.
    """
    found, known, own = InspectedAttacks(), Known(store, f"{SEEN}/attacks.json"), own_attacks(experiment)
    for name, attack in experiment.attacks.items():
        if not isinstance(attack, ForeignConfig):
            continue
        try:
            if name in own:
                found.code[name] = factory_code(own[name], experiment.factories, "attack")
                note_code(own[name], found.code[name])
            key = fingerprint_of([attack.deciding, found.code.get(name), list(shape), experiment.data.classes_count])
            known.get(key, _Passed, _check(attack, shape, experiment.data.classes_count))
        except InputError as problem:
            raise InputError(f"attacks.{name}: {problem}") from problem
        found.notes.append(
            f"attacks.{name}: {attack.method} sees a chunk as a whole and draws from the global random states, so "
            f"that its results depend on compute.chunk ({experiment.compute.chunk})"
        )
    found.unsaved |= known.unsaved()
    lost = {name: lost_to_8_bits(attack.eps, attack.norm) for name, attack in experiment.all_attacks.items()}
    found.notes += [f"attacks.{name}: {note}" for name, note in lost.items() if note]
    return found


def _check(attack: ForeignConfig, shape: tuple[int, int, int], classes: int) -> Callable[[], _Passed]:
    def check() -> _Passed:
        # Imported here because an attack that is known needs no torch, and `witness status` must answer at once.
        from align_core.attacks.foreign import check_foreign

        check_foreign(attack, shape, classes)
        return _Passed(True)

    return check
