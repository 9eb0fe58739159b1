"""Paths in an experiment file: relative to the file or, for `output`, to the current folder; with `~` and `$NAME`.

Addresses in object stores stay as they are.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_core.attacks import MadeElsewhere
from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.model_config import ModelConfig
from pipelines.storage.credentials import without_credentials
from pipelines.storage.far import check_far, is_far
from pipelines.storage.object_store import check_address, check_path

if TYPE_CHECKING:
    from pipelines.experiment.attack_kinds import Attack
    from pipelines.experiment.config import Experiment

PLACES = ("path", "labels", "label_names")
"""The keys of an image set that name a file or a folder, on a disk or in an object store."""


def _expanded(path: str) -> Path:
    """Replaces `~` and `$NAME` as a shell does.

    Raises InputError for a variable or user that there is not, and for an address that lacks a slash.
    """
    check_path(path)
    unset = [name for name in re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", path) if name not in os.environ]
    if unset:
        mend = "set it, or write the path itself"
        if unset[0].startswith("WITNESS_"):  # as those of the experiments that ship
            mend += ". The head of the experiment file says what it names"
        raise InputError(f"{path}: the environment variable {unset[0]} is not set; {mend}")
    expanded = os.path.expanduser(os.path.expandvars(path))  # not Path's, for which ./~name is ~name
    if expanded.startswith("~"):
        raise InputError(f"{path}: there is no such user; write ./{path} for a folder of that name")
    return Path(expanded)


def _output(output: str) -> str:
    """The absolute path, or the address, that results go to. Raises InputError."""
    try:
        if not is_far(output):
            return str(_expanded(output).absolute())
        check_address(output)
    except InputError as problem:
        raise InputError(f"output: {problem}") from problem
    return output


def with_absolute_paths(experiment: "Experiment", folder: Path) -> "Experiment":
    """Makes paths absolute: `output` is relative to the current folder, all others to that of the file.

    Raises InputError, naming the key, for a path that no machine can have, and an address that nothing can read from.
    """

    def absolute(key: str, path: str | None, may_be_far: bool = False) -> str | None:
        try:
            if not is_far(path):
                return None if path is None else str((folder / _expanded(path)).absolute())
            if not may_be_far:
                raise InputError(f"{without_credentials(path)}: this is read from a disk alone; copy it to one")
            check_far(path)
            return path
        except InputError as problem:
            raise InputError(f"{key}: {problem}") from problem

    def image_set(role: str, config: ImageSetConfig | None) -> ImageSetConfig | None:
        if config is None:
            return None
        places: dict[str, Any] = {
            key: absolute(f"data.{role}.{key}", getattr(config, key), may_be_far=True) for key in PLACES
        }
        return dataclasses.replace(config, **places)

    def model(name: str, config: ModelConfig) -> ModelConfig:
        weights, key = config.weights, f"models.{name}"
        if weights and config.weights_file:
            weights = absolute(f"{key}.weights", weights, may_be_far=True)
        return dataclasses.replace(config, weights=weights, aligned=absolute(f"{key}.aligned", config.aligned))

    def attack(name: str, config: "Attack") -> "Attack":
        if not isinstance(config, MadeElsewhere):
            return config
        images = absolute(f"attacks.{name}.images", config.images, may_be_far=True)
        return dataclasses.replace(config, images=str(images))

    data = experiment.data
    sets: dict[str, Any] = {role: image_set(role, getattr(data, role)) for role in ("train", "validation", "test")}
    if isinstance(data.classes, str):
        sets["classes"] = absolute("data.classes", data.classes)
    models = {name: model(name, config) for name, config in experiment.models.items()}
    output = _output(experiment.output)
    attacks = {name: attack(name, config) for name, config in experiment.all_attacks.items()}
    own = {"data": data.model_copy(update=sets), "models": models, "output": output, "all_attacks": attacks}
    return experiment.model_copy(update=own | {"factories": absolute("factories", experiment.factories or ".")})
