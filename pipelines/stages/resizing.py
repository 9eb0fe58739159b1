"""Says which models resize the images of the experiment: small images that are made large look as nothing they know."""

import json

from align_core.published import as_built
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.seen import SEEN
from pipelines.storage.store import fingerprint_of

_FILE = f"{SEEN}/input-sizes.json"


def resizings(blueprint: Blueprint) -> list[str]:
    """A line for each model of a run that resizes images, as `32 px images are resized to 224 for resnet50`.

    What was found out about models is added to `blueprint.inspected.unsaved`: asking timm takes seconds.
    """
    side, classes = blueprint.experiment.data.image_size, blueprint.experiment.data.classes_count
    known, lines, new = blueprint.store.read_json(_FILE) or {}, [], {}
    for name in _models_of_run(blueprint):
        config = blueprint.networks[name].config
        key = fingerprint_of([config.architecture, config.weights if config.torchvision else None, config.input_size])
        if key not in known:
            known[key] = new[key] = as_built(config, classes, blueprint.inspected.shape[0]).input_size
        if known[key] not in (None, side):
            lines.append(f"{side} px images are resized to {known[key]} for {name}")
    if new:
        blueprint.inspected.unsaved[_FILE] = json.dumps(known).encode()
    return lines


def _models_of_run(blueprint: Blueprint) -> list[str]:
    """Every model of the experiment that a run uses, in the order of the file."""
    used = {*blueprint.experiment.targets}
    for surrogate in blueprint.surrogates:
        used |= {surrogate.source, *surrogate.members, *surrogate.witnesses}
    return [name for name in blueprint.experiment.models if name in used]
