"""Inspects the image sets of an experiment, or reads from the store what is known of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.images.duplicates import without_duplicates
from align_core.images.inspection import Inspection, inspect_images
from align_core.images.manifest import Manifest, manifests_of
from pipelines.compute.here import images_here, images_shown
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.stages.input_checks import check_readable
from pipelines.stages.inspect_large import LOOKS_ONLY, SHARDS, Inspector, LargeSets, Shards
from pipelines.stages.manifest_file import IMAGES, inspection_from_bytes, inspection_to_bytes, manifest_file
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store


def manifests(
    experiment: Experiment,
    store: Store,
    progress: Progress,
    trusting: bool = True,
    large: LargeSets = LOOKS_ONLY,
) -> tuple[dict[str, Manifest], dict[str, bytes]]:
    """The manifests of all image sets by role, and files by path in the store that have still to be written.

    With `trusting`, a set is not read again whose files have the path, size and modification time that they had when it
    was inspected. Of large sets, shards may be written as `large` says; `delete_shards` deletes them once the files are
    written. Raises InputError, naming the set, where one cannot be used, or they do not fit each other.
    """
    unsaved: dict[str, bytes] = {}

    def look(role: str, config: ImageSetConfig) -> Inspection:
        found, new = _inspection_of(experiment, role, config, store, progress, trusting, large)
        unsaved.update(new)
        return found

    return look_at_all(experiment, look), unsaved


def look_at_all(experiment: Experiment, look: Callable[[str, ImageSetConfig], Inspection]) -> dict[str, Manifest]:
    """The manifests of all image sets by role, from what `look(role, config)` finds in each. Raises InputError."""
    data = experiment.data
    found: Mapping[str, Inspection] = {role: look(role, config) for role, config in experiment.image_sets().items()}
    for role, inspection in found.items():
        check_readable(data, role, inspection)
    targeted = ["test"] if any(attack.towards == "column" for attack in experiment.all_attacks.values()) else []
    channels = data.channels or (3 if any(model.takes_colour for model in experiment.models.values()) else None)
    together = manifests_of(found, data.fit, data.classes_count, data.class_names, channels, targeted)
    return without_duplicates(together, data.on_duplicate)


def delete_shards(store: Store, written: Iterable[str]) -> None:
    """Deletes all shards, where files of image sets are among those that are written now: these hold everything.

    So are folders in which earlier versions kept the shards of one set each.
    """
    if any(path.startswith(f"{SEEN}/{IMAGES}") for path in written):
        earlier = {folder for folder in store.listing(SEEN) if folder.startswith(f"{SEEN}/{IMAGES}")}
        for folder in (SHARDS, *sorted(earlier)):
            store.delete_folder(folder)


def _inspection_of(
    experiment: Experiment,
    role: str,
    config: ImageSetConfig,
    store: Store,
    progress: Progress,
    trusting: bool,
    large: LargeSets,
) -> tuple[Inspection, dict[str, bytes]]:
    """What is found in one image set, and what of it has still to be written to the store."""
    data, named = experiment.data, images_shown(config)
    try:
        path = f"{SEEN}/{manifest_file(config, data.fit, data.channels)}"
        if trusting and store.exists(path) and (known := inspection_from_bytes(store.read(path), named)) is not None:
            return known, {}
        here = images_here(config, lambda key: progress.fetching(f"data.{role}.{key}"))
        with progress.stage(f"inspect data.{role}", None, "images") as bar:
            shards = Shards(store, config, data.fit, data.channels)
            look = Inspector(shards, experiment.compute, large, trusting, bar, progress.say)
            found = inspect_images(here, data.fit, data.channels, look=look)
    except (InputError, OSError) as problem:
        raise InputError(f"data.{role}: {problem}") from problem
    return replace(found, config=named), {path: inspection_to_bytes(found)}
