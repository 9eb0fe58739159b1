"""What a sweep leads to: an experiment with the chosen settings, and the default ones as a variant beside them."""

import dataclasses
from itertools import chain, count
from typing import Any

from pipelines.experiment.checks import checked
from pipelines.experiment.config import Experiment, VariantConfig
from pipelines.sweep.space import Settings, settled


def best_experiment(experiment: Experiment, space: str, settings: Settings) -> tuple[Experiment, str]:
    """The experiment of `best.yaml`, and what the variant with the default settings is called in it.

    Other variants are left out. Raises InputError where the name gets too long.
    """
    align, witnesses = settled(experiment, settings)
    names = chain(("default", "default_settings"), (f"default_{number}" for number in count(2)))
    default = next(name for name in names if name not in experiment.models)
    variant = VariantConfig(witnesses=list(experiment.witnesses), align=dataclasses.asdict(experiment.align))
    changes: dict[str, Any] = {
        "name": f"{experiment.name}-best-{space}",
        "align": align,
        "witnesses": list(witnesses),
        "variants": {default: variant},
    }
    return checked(experiment.model_copy(update=changes)), default
