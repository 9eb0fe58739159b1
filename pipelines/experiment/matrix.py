"""A matrix of sources and targets: every model that it names is a source, and a target of all others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align_core.errors import InputError

if TYPE_CHECKING:
    from pipelines.experiment.config import Experiment, VariantConfig
    from pipelines.experiment.surrogates import Surrogate


def with_roles(content: Any) -> Any:
    """The content of an experiment file, with the source and the targets of its matrix, if it has one.

    Without witnesses nothing is aligned, so that there is nothing to control. Raises ValueError where the file gives
    both.
    """
    if not isinstance(content, dict) or not content.get("matrix") or not isinstance(content["matrix"], list):
        return content
    given = [key for key in ("source", "targets") if content.get(key) is not None]
    if given:
        raise ValueError(
            f"matrix: every model that it names is a source, and a target of the others; leave out "
            f"`{'` and `'.join(given)}`"
        )
    alone: dict[str, Any] = {} if content.get("witnesses") else {"witnesses": [], "controls": []}
    return {**alone, **content, "source": content["matrix"][0], "targets": content["matrix"]}


def check_matrix(experiment: "Experiment") -> None:
    """Raises InputError where a matrix contradicts another key, or cannot have what that asks for."""
    matrix, witnesses = experiment.matrix, experiment.witnesses
    if not matrix:
        if not witnesses:
            raise InputError("witnesses: must name at least one model")
        return
    if len(matrix) < 2:
        raise InputError("matrix: must name at least two models: each is attacked with images crafted on the others")
    for name in matrix:
        if name in witnesses:
            raise InputError(
                f"matrix: {name} is named in witnesses too; a model of the matrix is a target, which the attacker "
                "cannot see"
            )
    if experiment.registered_as:
        raise InputError("register: a matrix has an aligned model of every source, and one is registered; leave it out")
    needing = [control for control in experiment.controls if control != "label_only"]
    if needing and not witnesses:
        raise InputError(f"controls: {needing[0]} is made of witnesses, and this matrix has none")
    for name, attack in experiment.attacks.items():
        if attack.towards == "least_likely":
            raise InputError(
                f"attacks.{name}.towards: least_likely asks the source, and of the sources of a matrix all are targets "
                "too; choose next, random or column"
            )
    for name, variant in experiment.variants.items():
        _check_variant(experiment, name, variant)


def _check_variant(experiment: "Experiment", name: str, variant: "VariantConfig") -> None:
    if not variant.source:
        raise InputError(f"variants.{name}.source: must be given, because a matrix has no single source")
    is_aligned = variant.is_made and experiment.variant_align(name).needs_witnesses
    if is_aligned and not variant.witnesses and not experiment.witnesses:
        raise InputError(f"variants.{name}.witnesses: must be given, because this matrix has none")


def check_surrogates(experiment: "Experiment", surrogates: Sequence["Surrogate"]) -> None:
    """Raises InputError where a surrogate of a matrix has the name of a model, or has seen every target.

    The same holds for two surrogates that are to be compared, and have no target in common.
    """
    if not experiment.matrix:
        return
    by_name = {own.series: own for own in surrogates}
    taken = {own.series.lower(): own.series for own in surrogates if own.role}
    for kind, names in (("models", experiment.models), ("variants", experiment.variants)):
        for name in names:
            if name.lower() in taken:
                raise InputError(
                    f"{kind}.{name}: {taken[name.lower()]} is a surrogate of the matrix; choose another name"
                )
    for name in experiment.variants:
        if not by_name[name].unseen(experiment.targets):
            raise InputError(f"variants.{name}: it is made from every model of the matrix, so that none is its target")
    for one, other in experiment.contrasts:
        if not by_name[one].unseen(by_name[other].unseen(experiment.targets)):
            raise InputError(f"contrasts: {one} and {other} have no target in common, and cannot be compared")
