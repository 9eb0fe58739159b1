"""Checks of variants: the surrogates that an experiment adds, by themselves and among each other."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from align_core.align_config import AlignConfig
from align_core.errors import InputError
from align_core.refinements import REFINEMENTS
from align_core.refinements.parts import networks_are_several
from pipelines.experiment.explain import nearest
from pipelines.experiment.matrix import check_surrogates

if TYPE_CHECKING:
    from pipelines.experiment.config import Experiment, VariantConfig


def check_variant(name: str, variant: "VariantConfig") -> None:
    """Raises InputError where the keys of a variant contradict each other, or its refinement is not known."""
    key = f"variants.{name}"
    if variant.refine is not None and variant.refine not in REFINEMENTS:
        near = nearest(variant.refine, REFINEMENTS)
        raise InputError(f"{key}.refine: there is no refinement {variant.refine!r}{near}")
    if variant.model and variant.ensemble is not None:
        raise InputError(f"{key}: a model that is there, and an ensemble, are two surrogates: leave one out")
    how = "model" if variant.model else "ensemble" if variant.ensemble is not None else None
    given = [own for own in ("refine", "align", "witnesses", "budget") if getattr(variant, own)]
    if how and given:
        raise InputError(f"{key}.{how}: nothing is aligned here, so leave out `{'` and `'.join(given)}`")
    if variant.model and variant.combine:
        raise InputError(f"{key}.combine: a model that is there is one network, and nothing is combined")
    if variant.witnesses == []:
        raise InputError(f"{key}.witnesses: must name at least one model")
    if variant.ensemble is not None and len(set(variant.ensemble)) < 2:
        raise InputError(f"{key}.ensemble: must name at least two models or surrogates, each once")
    if variant.ensemble is not None and len(set(variant.ensemble)) < len(variant.ensemble):
        raise InputError(f"{key}.ensemble: names one member twice")
    lengths = [own for own in ("epochs", "limit_steps") if own in variant.align]
    if variant.budget and lengths:
        raise InputError(f"{key}: `budget` decides how long it is trained, and so does align.{lengths[0]}; choose one")


def check_variants(experiment: "Experiment") -> None:
    """Raises InputError where a variant or a contrast names what there is not, or what depends on itself."""
    from pipelines.experiment.surrogates import surrogates_of  # which is made of experiments

    for name in experiment.variants:
        _check_order(experiment, name, ())
    planned = surrogates_of(experiment)
    surrogates = {own.series: own for own in planned}
    for name, variant in experiment.variants.items():
        key, own = f"variants.{name}", surrogates[name].align
        for member in variant.ensemble or []:
            _check_known(f"{key}.ensemble", "model or surrogate", member, [*surrogates, *experiment.models])
        if variant.budget is not None:
            _check_known(f"{key}.budget", "surrogate", variant.budget, list(surrogates))
            budgeted = surrogates[variant.budget].align
            if budgeted is None:
                raise InputError(f"{key}.budget: {variant.budget} is used as it is, so that it has no budget")
            if budgeted.early_stop is not None:
                raise InputError(
                    f"{key}.budget: {variant.budget} stops early, so that its budget is not known before; give "
                    "align.limit_steps instead"
                )
        for member in variant.witnesses or []:
            if member in experiment.variants and not experiment.variants[member].is_made:
                members = " and ".join(surrogates[member].members)
                raise InputError(
                    f"{key}.witnesses: {member} is {members} as it is, and no network of its own; name those"
                )
        if own is None:
            _check_members(f"{key}.ensemble", surrogates[name].members)
        if own is not None and variant.witnesses and not own.needs_witnesses:
            raise InputError(f"{key}.witnesses: what it is made by needs no witness; leave them out")
        if own is not None:
            _check_effect(f"{key}.align", own, list(variant.align))
            _check_early_stop(experiment, f"{key}.align", own)
            _check_weights(f"{key}.align", own.over_witnesses, variant.witnesses or experiment.witnesses)
    if not any(surrogate.align is not None and surrogate.align.weight for surrogate in planned):
        usual = asdict(AlignConfig())
        named = [key for key, value in asdict(experiment.align).items() if value != usual[key] and key != "epochs"]
        _check_effect("align", experiment.align, named)
    _check_early_stop(experiment, "align", experiment.align)
    _check_weights("align", experiment.align.over_witnesses, experiment.witnesses)
    if experiment.registered_as and networks_are_several(experiment.align.keep):
        raise InputError("register: align.keep leaves several networks, and a model of the registry is one")
    for pair in experiment.contrasts:
        for member in pair:
            _check_known("contrasts", "surrogate", member, list(surrogates))
        if pair[0] == pair[1]:
            raise InputError(f"contrasts: {pair[0]} is compared with itself")
    pairs = [frozenset(pair) for pair in experiment.contrasts]
    for pair in experiment.contrasts:
        if pairs.count(frozenset(pair)) > 1:
            raise InputError(f"contrasts: {' and '.join(sorted(pair))} are compared twice; name each pair once")
    check_surrogates(experiment, planned)


def _check_effect(key: str, align: AlignConfig, named: list[str]) -> None:
    """Raises InputError where one of the keys that are named has no effect beside the others.

    What a variant inherits is not named by it: the experiment's `align` is meant for other surrogates, too.
    """
    idle = next((own for own in named if own in align.idle), None)
    if idle is not None:
        raise InputError(f"{key}.{idle}: has no effect, because {align.idle[idle]}")


def _check_early_stop(experiment: "Experiment", key: str, align: AlignConfig) -> None:
    """Raises InputError where an early stop has not what it is measured on."""
    stop, key = align.early_stop, f"{key}.early_stop"
    if stop is None:
        return
    if experiment.data.validation is None:
        raise InputError(f"{key}: needs data.validation: an end is chosen on validation images, not on the test ones")
    if stop.attack is None:
        return
    if not experiment.validation_targets:
        raise InputError(f"{key}: by gain, it needs validation_targets: an end is not chosen on the test targets")
    _check_known(f"{key}.attack", "attack", stop.attack, list(experiment.attacks))
    if experiment.attacks[stop.attack].is_targeted:
        raise InputError(
            f"{key}.attack: {stop.attack} leads towards a class, and it is measured how often targets are led away "
            "from the label; name an attack with towards: away"
        )


def _check_weights(key: str, weights: str | list[float], witnesses: list[str]) -> None:
    """Raises InputError where the losses to witnesses have weights, but not as many as there are witnesses."""
    if not isinstance(weights, str) and len(weights) != len(witnesses):
        counts = f"{len(weights)} weights, and there are {len(witnesses)} witnesses"
        raise InputError(f"{key}.over_witnesses: has {counts}; give a weight for each")


def _check_members(key: str, members: tuple[str, ...]) -> None:
    """Raises InputError where one network is in an ensemble twice: under two names, or as a member of a member."""
    twice = next((member for member in members if members.count(member) > 1), None)
    if twice is not None:
        raise InputError(
            f"{key}: {twice} is in it twice, by itself or within another member; every network counts once"
        )


def _check_known(key: str, kinds: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(f"{key}: there is no {kinds} {name!r}{nearest(name, known)}")


def _check_order(experiment: "Experiment", name: str, above: tuple[str, ...]) -> None:
    """Raises InputError where a variant needs itself, by its witnesses, its ensemble or its budget."""
    if name in above:
        raise InputError(f"variants.{name}: it needs itself: {' needs '.join([*above, name])}")
    for other in _needed(experiment, name):
        _check_order(experiment, other, (*above, name))


def _needed(experiment: "Experiment", name: str) -> Iterator[str]:
    variant = experiment.variants[name]
    for other in (*(variant.witnesses or ()), *(variant.ensemble or ()), *filter(None, [variant.budget])):
        if other in experiment.variants:
            yield other
