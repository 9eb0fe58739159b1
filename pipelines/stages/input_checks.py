"""Checks that need the content of image sets and weights: readable images, labels, disjoint sets, distinct networks.

Each raises InputError with a message that names the setting and says what to change.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from align_core.errors import InputError
from align_core.images.manifest import Manifest
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment


def check_images(experiment: Experiment, role: str, manifest: Manifest) -> None:
    """Checks one image set: unreadable images are allowed only where the experiment skips them; labels fit its classes.

    `role` is its key below `data`: train, validation or test.
    """
    data = experiment.data
    if manifest.unreadable and data.on_bad_image == "stop":
        named = "; ".join(f"{image_id}: {reason}" for image_id, reason in manifest.unreadable[:5])
        raise InputError(
            f"data.{role}: {len(manifest.unreadable)} images are unreadable ({named}). "
            "Repair them, or leave them out with data.on_bad_image: skip"
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


def check_disjoint(manifests: Mapping[str, Manifest]) -> None:
    """Checks that no two image sets contain the same image, compared by its pixels, and that their channels agree.

    Otherwise a surrogate would be aligned, or settings chosen, on images that the results are reported on.
    """
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


def check_weights_differ(experiment: Experiment, networks: Mapping[str, Network]) -> None:
    """Checks that networks which must be different have different weights, whatever they are called.

    No target may be a model that the attacker has, no validation target may be a test target, and no witness may be the
    source that is aligned to it.
    """
    attacker = [experiment.source, *experiment.witnesses]
    for variant in experiment.variants.values():
        attacker += [name for name in (variant.source, variant.model, *(variant.witnesses or [])) if name]
    pairs = [
        (role, t, a) for role in ("targets", "validation_targets") for t in getattr(experiment, role) for a in attacker
    ]
    pairs += [("validation_targets", v, t) for v in experiment.validation_targets for t in experiment.targets]
    for role, name, other in pairs:
        if _are_the_same(networks[name], networks[other]):
            raise InputError(f"{role}: {name} has the same weights as {other}; a target must be a model of its own")
    for role, source, witnesses in experiment.alignments():
        for witness in witnesses:
            if _are_the_same(networks[witness], networks[source]):
                raise InputError(f"{role}: {witness} has the same weights as the source, {source}")


def _are_the_same(one: Network, other: Network) -> bool:
    return one.digest is not None and one.digest == other.digest
