"""What libraries publish of an experiment's networks, and where the experiment differs from that."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.published import Crop, crops, described, other_normalisations
from pipelines.experiment.config import Experiment
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store, fingerprint_of

_FILE = f"{SEEN}/published.json"


@dataclasses.dataclass(frozen=True)
class OtherCrop:
    """A network whose published crop share or interpolation differs from that of the experiment's images, in words."""

    network: str
    published: str
    used: str


@dataclasses.dataclass(frozen=True)
class Published:
    """What differs between the networks as they are published and as they are used here.

    Attributes:
        other_crops: the networks that see other pictures than those they were published with.
        normalisations: by network, timm's tags with another normalisation than a file of weights gets.
    """

    other_crops: list[OtherCrop] = dataclasses.field(default_factory=list)
    normalisations: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def lines(self) -> list[str]:
        """What a run and a plan say of it."""
        said = [
            f"models.{network}: this file of weights gets mean and std of timm's default tag; if its weights come from "
            f"{' or '.join(tags[:4])}{' ...' if len(tags) > 4 else ''}, write that as `timm`, or give mean and std"
            for network, tags in self.normalisations.items()
        ]
        if self.other_crops:
            said += [
                f"images are {self.other_crops[0].used}; published accuracies of these networks refer to others "
                "(data.resize and data.interpolation change it, `witness evaluate --clean` shows what it costs):",
                *(f"  {other.network}: {other.published}" for other in self.other_crops),
            ]
        return said


def inspect_published(
    experiment: Experiment, models: Mapping[str, ModelConfig], store: Store
) -> tuple[Published, dict[str, bytes]]:
    """What is published of the models that have a role, and files by path in the store that are still to be written.

    What libraries publish is kept in the store, so that the next command need not import them. Raises InputError,
    naming the model.
    """
    known = store.read_json(_FILE) or {}
    new: dict[str, Any] = {}
    fit, found = experiment.data.fit, Published()
    for name in _in_roles(experiment):
        key = _key(models[name], experiment.data.classes_count)
        try:
            published, tags = [Crop(**crop) for crop in known[key]["crops"]], list(known[key]["normalisations"])
        except (KeyError, TypeError):  # not there, or damaged
            published, tags = _published(name, models[name], experiment.data.classes_count)
            new[key] = {"crops": [dataclasses.asdict(crop) for crop in published], "normalisations": tags}
        if tags:
            found.normalisations[name] = tags
        if published and not any(crop.is_used(fit) for crop in published):
            used = described(fit.size, fit.short_side, fit.interpolation)
            found.other_crops.append(OtherCrop(name, " or ".join(map(str, published)), used))
    return found, {_FILE: json.dumps({**known, **new}).encode()} if new else {}


def _in_roles(experiment: Experiment) -> list[str]:
    named = {experiment.source, *experiment.witnesses, *experiment.targets, *experiment.validation_targets}
    for variant in experiment.variants.values():
        named |= set(experiment.models_of(variant))
    return [name for name in experiment.models if name in named]


def _published(name: str, config: ModelConfig, classes: int) -> tuple[list[Crop], list[str]]:
    try:
        return crops(config, classes), other_normalisations(config)
    except InputError as problem:
        raise InputError(f"models.{name}: {problem}") from problem


def _key(config: ModelConfig, classes: int) -> str:
    libraries = [version(name) for name in ("timm", "torchvision")]
    return fingerprint_of([dataclasses.asdict(config), classes, libraries])
