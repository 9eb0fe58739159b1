"""An experiment written out whole: every setting as it took effect, so that the file can be run again by itself."""

import dataclasses
import re
from typing import Any

from pipelines.experiment.config import Experiment
from pipelines.experiment.yaml_file import written
from pipelines.storage.credentials import without_credentials


def as_yaml(experiment: Experiment) -> str:
    """The experiment file. Credentials are left out of URIs; a tracking URI that had some is left out whole."""
    content = experiment.model_dump(mode="json")
    variants = content.pop("variants")
    # Without the stars, either: run again, the file finds credentials where the object store's own tools do.
    content["output"] = re.sub(r"(?<=://)\*\*\*@|[?&]\*\*\*$", "", without_credentials(experiment.output))
    if experiment.tracking is not None and without_credentials(experiment.tracking) != experiment.tracking:
        content["tracking"] = None
    content["models"] = {name: dataclasses.asdict(config) for name, config in experiment.models.items()}
    plain = _plain(content)
    for name, config in experiment.models.items():
        if config.args:
            plain["models"][name]["args"] = config.args  # the constructor's: `null` and `{}` mean something to it
    if variants:
        # A variant says `null` where it undoes what the experiment sets.
        plain["variants"] = {n: {k: v for k, v in own.items() if v is not None} for n, own in variants.items()}
    return written(plain)


def _plain(value: Any) -> Any:
    """Without None and empty mappings; tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, {})}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
