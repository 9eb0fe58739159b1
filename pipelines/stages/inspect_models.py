"""Tries every model once, or reads from the store the hash of weights that were seen before."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from align_core.errors import InputError, reason_of
from align_core.model_config import ModelConfig, resolve_aligned
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.experiment.factories import note_code
from pipelines.experiment.factory_code import Code, factory_code
from pipelines.stages.file_hashes import FileHashes
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.registry import Registered, registered


def inspect_models(
    experiment: Experiment, store: Store, shape: tuple[int, int, int], trusting: bool
) -> tuple[dict[str, Network], dict[str, bytes]]:
    """Every model of the experiment by name, and files by path in the store that have still to be written.

    Args:
        shape: (C, H, W) of every image.
        trusting: whether weights of unchanged path, size and modification time count as unchanged.

    Raises InputError, naming the model, for one that cannot be used.
    """
    networks: dict[str, Network] = {}
    unsaved: dict[str, bytes] = {}
    stored = store.read_json(f"{SEEN}/models.json") or {}
    known = {key: digest for key, digest in stored.items() if digest is None or isinstance(digest, str)}
    files = FileHashes(store, trusting)
    digests: dict[str, str | None] = {}
    for name, written in experiment.models.items():
        try:
            found = registered(written, experiment, store, SEEN) if written.mlflow else None
            if found and not _is_as_it_was(found, files):
                found = registered(written, experiment, store, SEEN, anew=True)
            model = found.config if found else resolve_aligned(written)
            code = factory_code(model.factory, experiment.factories) if model.factory else None
            if code is not None:
                note_code(str(model.factory), code)
            key = _model_key(model, experiment.data.classes_count, shape, code, _bytes_of(model, found, files))
        except InputError as problem:
            raise InputError(f"models.{name}: {problem}") from problem
        unsaved |= found.unsaved if found else {}
        digests[key] = known[key] if _is_known(key, known) else _try_model(name, model, experiment, shape, found)
        networks[name] = Network(name, model, digests[key], found.stored if found else None, code)
    if digests.keys() - known.keys():
        unsaved[f"{SEEN}/models.json"] = json.dumps({**known, **digests}).encode()
    return networks, unsaved | files.unsaved()


def _is_known(key: str, known: Mapping[str, Any]) -> bool:
    return key in known and isinstance(known[key], str | None)


def _is_as_it_was(found: Registered, files: FileHashes) -> bool:
    """Whether the copy of a registered model is what was downloaded: its version in the registry never changes."""
    return files.of_stored(found.stored, found.unsaved.get(found.stored))[1]


def _bytes_of(config: ModelConfig, found: Registered | None, files: FileHashes) -> str | None:
    """The hash of the bytes of a model's weights; None where a library or a training supplies them."""
    if found is not None:
        return files.of_stored(found.stored, found.unsaved.get(found.stored))[0]
    try:
        return files.of_file(config.weights_file) if config.weights_file else None
    except OSError as problem:
        raise InputError(f"{config.weights_file}: cannot be read ({reason_of(problem)})") from problem


def _model_key(config: ModelConfig, classes: int, shape: Sequence[int], code: Code | None, content: str | None) -> str:
    """Identifies a model by its settings, its code, and the hash of the bytes of its weights, wherever they lie."""
    settings = dataclasses.asdict(config) | ({"weights": None} if config.weights_file else {})
    return fingerprint_of([settings, classes, list(shape), code, content])


def _try_model(
    name: str, config: ModelConfig, experiment: Experiment, shape: tuple[int, int, int], found: Registered | None
) -> str | None:
    """Builds a model, checks that it returns logits for an image, and returns the hash of its weights.

    The hash is None for a model that is trained here, as its weights do not exist yet.
    """
    # Imported here because an input that is known already needs no torch, and `witness status` must answer at once.
    from align_core.models import build, check_output, load
    from align_core.weights import hash_weights

    classes = experiment.data.classes_count
    try:
        weights = found.weights() if found else None
        classifier = build(config, classes, shape[0]) if config.train else load(config, classes, shape[0], weights)
    except InputError as problem:
        raise InputError(f"models.{name}: {problem}") from problem
    check_output(classifier, name, shape, classes)
    return None if config.train else hash_weights(classifier.net.state_dict())
