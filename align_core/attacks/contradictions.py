"""Settings of an attack that contradict each other, or that have no effect beside the others."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from align_core.attacks.parts import OBJECTIVES

if TYPE_CHECKING:
    from align_core.attacks.config import AttackConfig


class _Contradiction(NamedTuple):
    """A setting that does not fit the others.

    Args:
        setting: its name.
        is_there: whether an attack has the contradiction.
        why: the end of a sentence that begins with the setting.
        mend: what to set instead.
    """

    setting: str
    is_there: Callable[["AttackConfig"], bool]
    why: str
    mend: str


_CONTRADICTIONS = [
    _Contradiction(
        "nesterov",
        lambda attack: attack.nesterov and not attack.momentum,
        "looks ahead along the momentum, and there is none",
        "nesterov: false, or a momentum above 0",
    ),
    _Contradiction(
        "warm_start",
        lambda attack: attack.warm_start > 0 and not attack.momentum,
        "gathers momentum, and there is none",
        "warm_start: 0, or a momentum above 0",
    ),
    _Contradiction(
        "step_decay",
        lambda attack: attack.step_decay < 1 and attack.norm == "l2",
        "shrinks steps by the signs of pixels, which the l2 ball has not",
        "step_decay: 1 or norm: linf",
    ),
    _Contradiction(
        "step_decay",
        lambda attack: attack.step_decay < 1 and not attack.momentum,
        "shrinks steps where the sign of the momentum turns, and there is no momentum",
        "step_decay: 1, or a momentum above 0",
    ),
    _Contradiction(
        "combine",
        lambda attack: attack.combine == "logits" and not attack.views,
        "is about the copies that views make, and there are no views",
        "combine: gradients, or views",
    ),
    _Contradiction(
        "objective",
        lambda attack: not attack.is_targeted and not OBJECTIVES[attack.objective_name].untargeted,
        "needs a class to lead to, and towards is away",
        "another objective, or towards: next",
    ),
    _Contradiction(
        "objective",
        lambda attack: attack.is_targeted and not OBJECTIVES[attack.objective_name].targeted,
        "cannot lead towards a class",
        "another objective, or towards: away",
    ),
]

_IDLE: dict[str, tuple[str, Callable[["AttackConfig"], bool]]] = {
    "normalized": ("momentum", lambda attack: not attack.momentum),
    "warm_stride": ("warm_start", lambda attack: not attack.warm_start),
    "step_decay_by": ("step_decay", lambda attack: attack.step_decay == 1),
}
"""Setting -> the other one that it is about, and whether an attack has none of that."""


def without_effect(attack: "AttackConfig") -> set[str]:
    """The settings that have no effect, because the attack has not what they are about."""
    return {setting for setting, (_, is_idle) in _IDLE.items() if is_idle(attack)}


def check_together(attack: "AttackConfig", usual: Mapping[str, Any]) -> None:
    """Raises ValueError, which says what to change, for settings that contradict each other or have no effect.

    `usual` has the values of the method's preset. A setting without effect may have its usual value, since nobody
    asked for it; another value was asked for, and would be ignored.
    """
    for setting, is_there, why, mend in _CONTRADICTIONS:
        if is_there(attack):
            value = attack.objective_name if setting == "objective" else getattr(attack, setting)
            origin = f", which {attack.method} has," if value == usual[setting] else ""
            raise ValueError(f"{setting}: {_written(value)}{origin} {why}; set {mend}")
    for setting in sorted(without_effect(attack)):
        value, needed = getattr(attack, setting), _IDLE[setting][0]
        if value != usual[setting]:
            raise ValueError(
                f"{setting}: {_written(value)} has no effect without {needed}; set {needed}, or leave {setting} out"
            )


def _written(value: Any) -> str:
    """A value as a file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
