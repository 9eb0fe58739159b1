"""The kinds of attacks that a file may hold: ours, those of others, and images that were made elsewhere."""

import dataclasses
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator

from align_core.attacks import AttackConfig, ForeignConfig, MadeElsewhere, pixel_fraction
from align_core.attacks.foreign_config import is_foreign
from pipelines.experiment.explain import CLASSES

_KINDS: dict[str, Any] = {f"[{own.__name__}]": own for own in (AttackConfig, ForeignConfig, MadeElsewhere)}


def _class_of(attack: Any) -> str:
    """The class of an attack, in brackets, by its method, or by the images that it has in place of one."""
    if isinstance(attack, AttackConfig | ForeignConfig | MadeElsewhere):
        return f"[{type(attack).__name__}]"
    if isinstance(attack, dict) and "images" in attack:
        return "[MadeElsewhere]"
    method = attack.get("method") if isinstance(attack, dict) else None
    return "[ForeignConfig]" if is_foreign(method) else "[AttackConfig]"


def _with_fractions(attack: Any) -> Any:
    """Turns `4/255` into a number, and drops settings that are null, before the attack's class checks them."""
    if not isinstance(attack, dict):
        return attack
    settings = {field.name for field in dataclasses.fields(_KINDS[_class_of(attack)])}
    attack = {key: value for key, value in attack.items() if value is not None or key not in settings}
    fractions = {key: attack[key] for key in ("eps", "step") if key in attack}
    try:
        return attack | {key: pixel_fraction(value) for key, value in fractions.items()}
    except ValueError as problem:
        raise ValueError(f"eps, step: {problem}") from problem


Attack = Annotated[
    Annotated[AttackConfig, CLASSES["[AttackConfig]"]]
    | Annotated[ForeignConfig, CLASSES["[ForeignConfig]"]]
    | Annotated[MadeElsewhere, CLASSES["[MadeElsewhere]"]],
    Discriminator(_class_of),
    BeforeValidator(_with_fractions),
]
"""An attack of a file, of the class that its keys show."""
