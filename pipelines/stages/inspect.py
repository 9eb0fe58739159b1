"""One look at the data: image sets into manifests, weights into hashes, and the checks that need them.

What was seen is kept by path, size and time of change, so a second run looks at nothing again. Nothing is written
before everything has passed.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from align_core.data import ImageSetConfig, open_image_set
from align_core.errors import InputError
from align_core.manifest import Manifest, inspect_images
from align_core.model_config import ModelConfig, resolve_aligned
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.registry import Registered, registered

SEEN = ".seen"


@dataclass
class Inspected:
    """What the experiment's inputs turned out to be."""

    manifests: dict[str, Manifest]
    networks: dict[str, Network]
    unsaved: dict[str, bytes] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.manifests["test"].shape

    def save(self, store: Store) -> None:
        """Keeps what was seen for the next run."""
        for place, content in self.unsaved.items():
            store.write(place, content)
        self.unsaved.clear()


def inspect_inputs(experiment: Experiment, store: Store, progress: Progress) -> Inspected:
    """Looks at every image set and model, or at what is known of them. Raises InputError; writes nothing."""
    inspected = Inspected({}, {})
    for role, config in experiment.image_sets().items():
        manifest = _manifest(experiment, role, config, store, progress, inspected)
        _check_images(experiment, role, manifest)
        inspected.manifests[role] = manifest
    _check_no_overlap(inspected.manifests)
    known = store.read_json(f"{SEEN}/models.json") or {}
    seen = {}
    for name, written in experiment.models.items():
        try:
            found = registered(written, experiment, store, SEEN) if written.mlflow else None
            model = found.config if found else resolve_aligned(written)
        except InputError as problem:
            raise InputError(f"models.{name}: {problem}") from problem
        inspected.unsaved |= found.unsaved if found else {}
        key = _model_key(model, experiment.data.classes, inspected.shape)
        seen[key] = known[key] if key in known else _look_at_model(name, model, experiment, inspected.shape, found)
        inspected.networks[name] = Network(name, model, seen[key], found.stored if found else None)
    if seen.keys() - known.keys():
        inspected.unsaved[f"{SEEN}/models.json"] = json.dumps({**known, **seen}).encode()
    _check_weights_differ(experiment, inspected.networks)
    return inspected


def _manifest(
    experiment: Experiment, role: str, config: ImageSetConfig, store: Store, progress: Progress, inspected: Inspected
) -> Manifest:
    image_size = experiment.data.image_size
    try:
        files = open_image_set(config, image_size).files()
        state = [[str(file), *_size_and_time(file)] for file in files]
        name = f"images-{fingerprint_of([dataclasses.asdict(config), image_size, state])}.parquet"
        if store.exists(f"{SEEN}/{name}"):
            return _manifest_from(store.read(f"{SEEN}/{name}"))
        with progress.stage(f"look at data.{role}", None, "images") as bar:
            manifest = inspect_images(config, image_size, lambda _: bar.advance(1))
    except (InputError, OSError) as problem:
        raise InputError(f"data.{role}: {problem}") from problem
    inspected.unsaved[f"{SEEN}/{name}"] = _manifest_to_bytes(manifest)
    return manifest


def _size_and_time(file: Path) -> tuple[int, int]:
    state = os.stat(file) if file.exists() else None
    return (state.st_size, state.st_mtime_ns) if state else (-1, -1)


def _manifest_to_bytes(manifest: Manifest) -> bytes:
    table = pa.table({"image_id": manifest.ids, "label": manifest.labels, "content": manifest.contents})
    about = {"unreadable": json.dumps(manifest.unreadable), "shape": json.dumps(manifest.shape)}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(about), sink, compression="zstd")
    return bytes(sink.getvalue())


def _manifest_from(content: bytes) -> Manifest:
    table = pq.read_table(pa.BufferReader(content))
    about = {
        key.decode(): json.loads(value)
        for key, value in (table.schema.metadata or {}).items()
        if key != b"ARROW:schema"
    }
    return Manifest(
        ids=table["image_id"].to_pylist(),
        labels=table["label"].to_numpy().astype(np.int64),
        contents=table["content"].to_pylist(),
        unreadable=[(image_id, reason) for image_id, reason in about["unreadable"]],
        shape=tuple(about["shape"]),
    )


def _check_images(experiment: Experiment, role: str, manifest: Manifest) -> None:
    data = experiment.data
    if manifest.unreadable and data.on_bad_image == "stop":
        named = "; ".join(f"{image_id}: {reason}" for image_id, reason in manifest.unreadable[:5])
        raise InputError(
            f"data.{role}: {len(manifest.unreadable)} images are unreadable ({named}). "
            "Mend them, or leave them out with data.on_bad_image: skip"
        )
    if not len(manifest):
        raise InputError(f"data.{role}: no image of this set can be read")
    outside = np.flatnonzero((manifest.labels < 0) | (manifest.labels >= data.classes))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"data.{role}: {len(outside)} labels lie outside 0 to {data.classes - 1}: image {manifest.ids[first]} has "
            f"label {int(manifest.labels[first])}; is data.classes right?"
        )


def _check_no_overlap(manifests: dict[str, Manifest]) -> None:
    for (one, a), (other, b) in combinations(manifests.items(), 2):
        if a.shape[0] != b.shape[0]:
            raise InputError(f"data.{one} has {a.shape[0]} channels, data.{other} {b.shape[0]}")
        ids = dict(zip(a.contents, a.ids, strict=True))
        shared = [(ids[c], i) for c, i in zip(b.contents, b.ids, strict=True) if c in ids]
        if shared:
            raise InputError(
                f"data.{one} and data.{other} overlap: {len(shared)} images are in both, pixel for pixel "
                f"({shared[0][0]} is {shared[0][1]}); alignment, validation and test images must be disjoint"
            )


def _model_key(config: ModelConfig, classes: int, shape: Sequence[int]) -> str:
    file = config.weights_file
    return fingerprint_of([dataclasses.asdict(config), classes, list(shape), _size_and_time(file) if file else None])


def _look_at_model(
    name: str, config: ModelConfig, experiment: Experiment, shape: tuple[int, int, int], found: Registered | None
) -> str | None:
    """Builds the model, pushes one image through it, and hashes its weights; None where they have still to be made."""
    # Imported here, because what was looked at before needs no torch: `witness status` answers without it.
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


def _check_weights_differ(experiment: Experiment, networks: dict[str, Network]) -> None:
    """No target may be one of the attacker's models under another name; no validation target a test target."""
    attacker = [experiment.source, *experiment.witnesses]
    for variant in experiment.variants.values():
        attacker += [name for name in (variant.source, variant.model, *(variant.witnesses or [])) if name]
    pairs = [
        (role, t, a) for role in ("targets", "validation_targets") for t in getattr(experiment, role) for a in attacker
    ]
    pairs += [("validation_targets", v, t) for v in experiment.validation_targets for t in experiment.targets]
    for role, name, other in pairs:
        digest = networks[name].digest
        if digest is not None and digest == networks[other].digest:
            raise InputError(f"{role}: {name} has the same weights as {other}; a target must be a model of its own")
    for role, source, witnesses in experiment.alignments():
        for witness in witnesses:
            if networks[witness].digest is not None and networks[witness].digest == networks[source].digest:
                raise InputError(f"{role}: {witness} has the same weights as the source, {source}")
