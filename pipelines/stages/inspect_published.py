"""How the networks' pictures are published, and where the images that an experiment fixes differ from that."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.published import Crop, crops, described
from pipelines.experiment.config import Experiment
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store, fingerprint_of

_FILE = f"{SEEN}/crops.json"


@dataclasses.dataclass(frozen=True)
class OtherCrop:
    """A network whose published crop share or interpolation differs from that of the experiment's images, in words."""

    network: str
    published: str
    used: str


def inspect_published(
    experiment: Experiment, models: Mapping[str, ModelConfig], store: Store
) -> tuple[list[OtherCrop], dict[str, bytes]]:
    """The networks that see other pictures than those they were published with, and files that are still to be written.

    Only models that have a role are looked at. What libraries publish is kept in the store, so that the next command
    need not import them. Raises InputError, naming the model.
    """
    known = store.read_json(_FILE) or {}
    found: dict[str, list[dict[str, object]]] = {}
    fit, others = experiment.data.fit, []
    for name in _in_roles(experiment):
        key = _key(models[name], experiment.data.classes_count)
        try:
            published = [Crop(**crop) for crop in known[key]]
        except (KeyError, TypeError):  # not there, or damaged
            published = _published(name, models[name], experiment.data.classes_count)
            found[key] = [dataclasses.asdict(crop) for crop in published]
        if published and not any(crop.is_used(fit) for crop in published):
            used = described(fit.size, fit.short_side, fit.interpolation)
            others.append(OtherCrop(name, " or ".join(map(str, published)), used))
    return others, {_FILE: json.dumps({**known, **found}).encode()} if found else {}


def other_crops_said(others: Sequence[OtherCrop]) -> list[str]:
    """The lines that say it: one for all, then one per network."""
    if not others:
        return []
    return [
        f"images are {others[0].used}; published accuracies of these networks refer to others (data.resize and "
        "data.interpolation change it, `witness evaluate --clean` shows what it costs):",
        *(f"  {other.network}: {other.published}" for other in others),
    ]


def _in_roles(experiment: Experiment) -> list[str]:
    named = {experiment.source, *experiment.witnesses, *experiment.targets, *experiment.validation_targets}
    for variant in experiment.variants.values():
        named |= {name for name in (variant.source, variant.model, *(variant.witnesses or [])) if name}
    return [name for name in experiment.models if name in named]


def _published(name: str, config: ModelConfig, classes: int) -> list[Crop]:
    try:
        return crops(config, classes)
    except InputError as problem:
        raise InputError(f"models.{name}: {problem}") from problem


def _key(config: ModelConfig, classes: int) -> str:
    libraries = [version(name) for name in ("timm", "torchvision")]
    return fingerprint_of([dataclasses.asdict(config), classes, libraries])
