"""Defended models: which model is within the wraps of another, and which roles a defended one may have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_core.defences import Wrap
from align_core.errors import InputError
from align_core.model_config import ModelConfig
from pipelines.experiment.explain import nearest

if TYPE_CHECKING:
    from pipelines.experiment.config import Experiment


@dataclass(frozen=True)
class Unwrapped:
    """The model within: its name, and the defences around it, the outermost first."""

    name: str
    wraps: tuple[Wrap, ...]


def unwrapped(models: Mapping[str, ModelConfig], name: str) -> Unwrapped:
    """The model within all wraps of `name`; of a model without any, itself. The experiment must be checked."""
    wraps: list[Wrap] = []
    while (wrap := models[name].wrap) is not None:
        wraps.append(Wrap(wrap, models[name].args))
        name = str(models[name].model)
    return Unwrapped(name, tuple(wraps))


def check_wraps(experiment: "Experiment", roles: Mapping[str, list[str]]) -> None:
    """Every wrap is put around a model of the experiment, and only targets are defended. Raises InputError."""
    models = experiment.models
    for name, config in models.items():
        passed, inner = [name], config
        while inner.model is not None:
            if inner.model not in models:
                key = f"models.{passed[-1]}.model"
                raise InputError(f"{key}: there is no model {inner.model!r}{nearest(inner.model, models)}")
            if inner.model in passed:
                raise InputError(f"models.{name}.model: {' -> '.join([*passed, inner.model])} has no model within")
            passed.append(inner.model)
            inner = models[inner.model]
    for role, names in roles.items():
        for name in names:
            if models[name].wrap is not None and not role.endswith("targets"):
                raise InputError(
                    f"{role}: {name} is defended (wrap: {models[name].wrap}), and a defence is not differentiable, so "
                    "that nothing can be crafted on it or aligned with it; only targets may be defended. Name the "
                    f"model within, {unwrapped(models, name).name}"
                )
