"""The experiment of best.yaml, which compares the chosen settings with those that the surrogate's entry has."""

import dataclasses
from collections.abc import Iterator
from itertools import chain, count
from typing import Any, NamedTuple

from align_core.align_config import AlignConfig
from align_core.refinements import laid_over
from pipelines.experiment.checks import checked
from pipelines.experiment.config import Experiment, VariantConfig
from pipelines.experiment.surrogates import surrogates_of
from pipelines.sweep.entry import ALIGNED, Entry, settled, written
from pipelines.sweep.settings import WITNESSES, Settings


class Best(NamedTuple):
    """The experiment of best.yaml, and the names in it of the surrogates with the chosen and the entry's settings."""

    experiment: Experiment
    chosen: str
    default: str


def best_experiment(experiment: Experiment, entry: Entry, space: str, settings: Settings) -> Best:
    """Returns the experiment with the chosen settings in the place of the surrogate's own, and these beside them.

    Of variants, only those are left that the surrogate needs, so that the test images are used for this one comparison;
    and of contrasts, those of surrogates that are left. Where `aligned` is tuned, the chosen settings are the
    experiment's own. A control cannot have settings of its own: there the chosen ones are those of a variant.

    Raises InputError where the new experiment's name is too long.
    """
    taken = {*experiment.models, *experiment.variants}
    default, tuned = _free("default", taken), entry.name
    changes: dict[str, Any] = {"name": f"{experiment.name}-best-{entry.label(space)}"}
    if entry.name == ALIGNED:
        align, witnesses = settled(entry, settings)
        own = VariantConfig(align=_with_effect(dataclasses.asdict(experiment.align), experiment.align))
        if entry.witnesses and entry.align.needs_witnesses:
            own = own.model_copy(update={"witnesses": list(entry.witnesses)})
            changes["witnesses"] = list(witnesses)
        changes |= {"align": align, "variants": {default: own}}
    elif entry.name in experiment.variants:
        before = experiment.variants[entry.name]
        chosen = _with_settings(entry, before, settings)
        needed = {name: experiment.variants[name] for name in dict.fromkeys(_needed(experiment, before))}
        changes["variants"] = {**needed, entry.name: chosen, default: before}
    else:
        default, tuned = entry.name, _free(f"tuned_{entry.name}", taken)
        changes["variants"] = {tuned: _with_settings(entry, VariantConfig(refine=entry.surrogate.refine), settings)}
    best = experiment.model_copy(update=changes)
    left = {surrogate.name for surrogate in surrogates_of(best.model_copy(update={"seeds": []}))}
    pairs = [pair for pair in experiment.contrasts if left.issuperset(pair)]
    if entry.name != ALIGNED and [tuned, default] not in pairs:
        pairs.append([tuned, default])
    return Best(checked(best.model_copy(update={"contrasts": pairs})), tuned, default)


def _free(name: str, taken: set[str]) -> str:
    """This name, or the first of others that no model and no variant has."""
    names = chain((name, f"{name}_settings"), (f"{name}_{number}" for number in count(2)))
    return next(own for own in names if own not in taken)


def _with_settings(entry: Entry, before: VariantConfig, settings: Settings) -> VariantConfig:
    """A variant with settings in the place of its own."""
    own = laid_over(before.align, written(entry.align, settings))
    changes: dict[str, Any] = {"align": _with_effect(own, settled(entry, settings)[0])}
    if WITNESSES in settings:
        changes["witnesses"] = list(settings[WITNESSES])
    return before.model_copy(update=changes)


def _with_effect(written: dict[str, Any], align: AlignConfig) -> dict[str, Any]:
    """The settings of a variant that have an effect: a file must not name others."""
    return {key: value for key, value in written.items() if key not in align.idle}


def _needed(experiment: Experiment, variant: VariantConfig) -> Iterator[str]:
    """The variants that a variant is aligned to or has its budget from, after those that these need."""
    for name in (*(variant.witnesses or ()), *filter(None, [variant.budget])):
        if name in experiment.variants:
            yield from _needed(experiment, experiment.variants[name])
            yield name
