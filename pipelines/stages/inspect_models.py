"""Tries every model once, or reads from the store the hash of weights that were seen before."""

import dataclasses
import json
from collections.abc import Sequence

from align_core.errors import InputError
from align_core.model_config import ModelConfig, resolve_aligned
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.stages.manifest_file import size_and_time
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.registry import Registered, registered


def inspect_models(
    experiment: Experiment, store: Store, shape: tuple[int, int, int]
) -> tuple[dict[str, Network], dict[str, bytes]]:
    """Every model of the experiment by name, and files by path in the store that have still to be written.

    `shape` is (C, H, W) of every image. Raises InputError, naming the model, for one that cannot be used.
    """
    networks: dict[str, Network] = {}
    unsaved: dict[str, bytes] = {}
    known = store.read_json(f"{SEEN}/models.json") or {}
    digests: dict[str, str | None] = {}
    for name, written in experiment.models.items():
        try:
            found = registered(written, experiment, store, SEEN) if written.mlflow else None
            model = found.config if found else resolve_aligned(written)
        except InputError as problem:
            raise InputError(f"models.{name}: {problem}") from problem
        unsaved |= found.unsaved if found else {}
        key = _model_key(model, experiment.data.classes_count, shape)
        digests[key] = known[key] if key in known else _try_model(name, model, experiment, shape, found)
        networks[name] = Network(name, model, digests[key], found.stored if found else None)
    if digests.keys() - known.keys():
        unsaved[f"{SEEN}/models.json"] = json.dumps({**known, **digests}).encode()
    return networks, unsaved


def _model_key(config: ModelConfig, classes: int, shape: Sequence[int]) -> str:
    """Identifies a model by its settings and by size and modification time of its weights."""
    file = config.weights_file
    return fingerprint_of([dataclasses.asdict(config), classes, list(shape), size_and_time(file) if file else None])


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
