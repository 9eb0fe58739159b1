"""Inspects the inputs of an experiment: image sets become manifests, weights become hashes, and both are checked.

Each input is inspected once. What was found is kept in the store, by path, size and modification time, so that the next
command does not read the images and weights again. Nothing is written before every input has passed.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from align_core.data import ImageSetConfig
from align_core.errors import InputError
from align_core.manifest import Manifest, inspect_images
from align_core.model_config import ModelConfig, resolve_aligned
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.stages.input_checks import check_disjoint, check_images, check_weights_differ
from pipelines.stages.manifest_file import manifest_file, manifest_from_bytes, manifest_to_bytes, size_and_time
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.registry import Registered, registered

SEEN = ".seen"
"""The folder of the store that keeps what was found out about inputs."""


@dataclass
class Inspected:
    """What was found out about the inputs of an experiment.

    Attributes:
        manifests: ids, labels and content hashes of each image set, by role (train, validation, test).
        networks: the models of the experiment, by name. One that is trained here has no digest yet.
        unsaved: files, by path in the store, that this inspection found and that `save` will write.
    """

    manifests: dict[str, Manifest]
    networks: dict[str, Network]
    unsaved: dict[str, bytes] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.manifests["test"].shape

    def save(self, store: Store) -> None:
        """Writes what was found to the store, so that the next command need not inspect the same inputs again."""
        for path, content in self.unsaved.items():
            store.write(path, content)
        self.unsaved.clear()


def inspect_inputs(experiment: Experiment, store: Store, progress: Progress) -> Inspected:
    """Inspects every image set and model, or reads from the store what is known of them, and checks them all.

    Writes nothing. Raises InputError, naming the setting, for the first input that cannot be used.
    """
    inspected = Inspected({}, {})
    for role, config in experiment.image_sets().items():
        manifest = _manifest(experiment, role, config, store, progress, inspected)
        check_images(experiment, role, manifest)
        inspected.manifests[role] = manifest
    check_disjoint(inspected.manifests)
    _inspect_models(experiment, store, inspected)
    check_weights_differ(experiment, inspected.networks)
    return inspected


def _manifest(
    experiment: Experiment, role: str, config: ImageSetConfig, store: Store, progress: Progress, inspected: Inspected
) -> Manifest:
    image_size = experiment.data.image_size
    try:
        path = f"{SEEN}/{manifest_file(config, image_size)}"
        if store.exists(path) and (manifest := manifest_from_bytes(store.read(path))) is not None:
            return manifest
        with progress.stage(f"inspect data.{role}", None, "images") as bar:
            manifest = inspect_images(config, image_size, lambda _: bar.advance(1))
    except (InputError, OSError) as problem:
        raise InputError(f"data.{role}: {problem}") from problem
    inspected.unsaved[path] = manifest_to_bytes(manifest)
    return manifest


def _inspect_models(experiment: Experiment, store: Store, inspected: Inspected) -> None:
    """Adds every model of the experiment to `inspected.networks`. Raises InputError."""
    stored = store.read_json(f"{SEEN}/models.json") or {}
    known = {key: digest for key, digest in stored.items() if digest is None or isinstance(digest, str)}
    digests: dict[str, str | None] = {}
    for name, written in experiment.models.items():
        try:
            found = registered(written, experiment, store, SEEN) if written.mlflow else None
            model = found.config if found else resolve_aligned(written)
        except InputError as problem:
            raise InputError(f"models.{name}: {problem}") from problem
        inspected.unsaved |= found.unsaved if found else {}
        key = _model_key(model, experiment.data.classes, inspected.shape)
        digests[key] = known[key] if key in known else _try_model(name, model, experiment, inspected.shape, found)
        inspected.networks[name] = Network(name, model, digests[key], found.stored if found else None)
    if digests.keys() - known.keys():
        inspected.unsaved[f"{SEEN}/models.json"] = json.dumps({**known, **digests}).encode()


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

    classes = experiment.data.classes
    try:
        weights = found.weights() if found else None
        classifier = build(config, classes, shape[0]) if config.train else load(config, classes, shape[0], weights)
    except InputError as problem:
        raise InputError(f"models.{name}: {problem}") from problem
    check_output(classifier, name, shape, classes)
    return None if config.train else hash_weights(classifier.net.state_dict())
