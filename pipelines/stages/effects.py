"""What alignments did to the likeness to their witnesses, as the cards of the networks say that were made."""

from collections.abc import Iterator

from align_core.effect import Effect, effect_from
from pipelines.stages.blueprint import Blueprint


def effect_of(blueprint: Blueprint, name: str) -> Effect | None:
    """What the alignment of a surrogate did; None where it has no witness, is not there, or its card does not say."""
    surrogate = blueprint.by_name.get(name)
    if surrogate is None or not surrogate.witnesses or name in blueprint.lost or not blueprint.is_made(name):
        return None
    return effect_from((blueprint.store.read_json(f"models/{name}/card.json") or {}).get("effect"))


def steps_taken(blueprint: Blueprint, name: str) -> int | None:
    """How many steps a surrogate with an early stop took, as its card says; None for all others."""
    surrogate = blueprint.by_name[name]
    if surrogate.align is None or surrogate.align.early_stop is None:
        return None
    noted = (blueprint.store.read_json(f"models/{name}/card.json") or {}).get("early_stop")
    steps = noted.get("steps") if isinstance(noted, dict) else None
    return steps if isinstance(steps, int) else None


def without_effect(blueprint: Blueprint) -> Iterator[str]:
    """A warning for each surrogate whose alignment did not work."""
    for surrogate in blueprint.surrogates:
        effect = effect_of(blueprint, surrogate.name)
        if effect is not None and (warning := effect.warning()):
            yield f"{surrogate.name}: {warning}"
