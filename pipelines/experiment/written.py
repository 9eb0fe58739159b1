"""Writes an experiment as a complete file, with every setting that took effect, which can be run again by itself."""

import dataclasses
import re
from typing import Any

from align_core.attacks import ForeignConfig
from pipelines.experiment.config import Experiment
from pipelines.experiment.paths import PLACES
from pipelines.experiment.yaml_file import dump_yaml
from pipelines.storage.credentials import without_credentials
from pipelines.storage.far import is_far


def as_yaml(experiment: Experiment) -> str:
    """Returns the text of the experiment file, without credentials.

    They are removed from addresses in object stores, whose own tools find them again when the file is run. A tracking
    URI that contains credentials is left out.
    """
    content = experiment.model_dump(mode="json")
    variants = content.pop("variants")
    if experiment.seeds:
        del content["seed"]
    for key in ("source", "targets") if experiment.matrix else ("matrix",):
        del content[key]
    content["output"] = _without_credentials(experiment.output)
    for role in experiment.image_sets():
        far = {key: place for key in PLACES if is_far(place := content["data"][role][key])}
        content["data"][role] |= {key: _without_credentials(place) for key, place in far.items()}
    for name, made in experiment.made_elsewhere.items():
        if is_far(made.images):
            content["attacks"][name]["images"] = _without_credentials(made.images)
    if experiment.tracking is not None and without_credentials(experiment.tracking) != experiment.tracking:
        content["tracking"] = None
    content["models"] = {name: dataclasses.asdict(config) for name, config in experiment.models.items()}
    for config in content["models"].values():
        config["weights"] = _without_credentials(config["weights"]) if is_far(config["weights"]) else config["weights"]
    plain = _plain(content)
    for name, config in experiment.models.items():
        if config.wrap is not None:
            plain["models"][name] = {"wrap": config.wrap, "model": config.model, **config.args}
        elif config.args:
            plain["models"][name]["args"] = config.args  # to the model's constructor `null` and `{}` mean something
    for name, attack in experiment.attacks.items():
        if isinstance(attack, ForeignConfig) and attack.args:
            plain["attacks"][name]["args"] = attack.args
    if variants:
        # In a variant, `null` undoes a setting of the experiment, so it is kept.
        plain["variants"] = {n: {k: v for k, v in own.items() if v is not None} for n, own in variants.items()}
    return dump_yaml(plain)


def _without_credentials(uri: str) -> str:
    """Returns a valid URI: the stars that stand for credentials are removed too."""
    return re.sub(r"(?<=://)\*\*\*@|[?&]\*\*\*$", "", without_credentials(uri))


def _plain(value: Any) -> Any:
    """Returns the value without None and empty mappings, and with lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, {})}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
