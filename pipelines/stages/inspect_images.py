"""Inspects one image set, or reads from the store what is known of it."""

from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.images.manifest import Manifest, inspect_images
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.stages.manifest_file import manifest_file, manifest_from_bytes, manifest_to_bytes
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store


def manifest_of(
    experiment: Experiment, role: str, config: ImageSetConfig, store: Store, progress: Progress, trusting: bool = True
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of one image set, and files by path in the store that were found and have still to be written.

    `role` is its key below `data`: train, validation or test. With `trusting`, a set is not read again whose files have
    the path, size and modification time that they had when it was inspected. Raises InputError where the set cannot be
    listed.
    """
    fit = experiment.data.fit
    try:
        path = f"{SEEN}/{manifest_file(config, fit)}"
        if trusting and store.exists(path) and (manifest := manifest_from_bytes(store.read(path))) is not None:
            return manifest, {}
        with progress.stage(f"inspect data.{role}", None, "images") as bar:
            manifest = inspect_images(config, fit, lambda _: bar.advance(1))
    except (InputError, OSError) as problem:
        raise InputError(f"data.{role}: {problem}") from problem
    return manifest, {path: manifest_to_bytes(manifest)}
