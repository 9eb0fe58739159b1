"""Images and weights on this machine: what lies in an object store is fetched, and then read as any file is.

Whoever reads images or weights asks here first, so that each node fetches its own; workers ask by way of `on_node`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from align_core.attacks import MadeElsewhere
from align_core.images import ImageSetConfig
from align_core.model_config import ModelConfig
from pipelines.experiment.paths import PLACES
from pipelines.storage.cache import Advance, Watch, unwatched
from pipelines.storage.credentials import without_credentials
from pipelines.storage.far import fetched, is_far


@contextmanager
def in_worker(_: int) -> Iterator[Advance]:
    """What arrives is progress of the worker that waits for it."""
    from pipelines.compute.ray_data import WATCH  # which imports those that fetch

    yield lambda _: WATCH.progress()


def images_here(config: ImageSetConfig, watching: Callable[[str], Watch] = lambda _: in_worker) -> ImageSetConfig:
    """The settings of an image set with paths on this machine. Raises InputError where it cannot be fetched.

    `watching` returns, for the key of what is fetched, how that is shown.
    """
    places: dict[str, Any] = {key: str(fetched(place, watching(key))) for key, place in far_places(config).items()}
    return replace(config, **places) if places else config


def weights_here(config: ModelConfig, watch: Watch = in_worker) -> ModelConfig:
    """The settings of a model with its weights file on this machine. Raises InputError where it cannot be fetched."""
    return replace(config, weights=str(fetched(config.weights, watch))) if is_far(config.weights) else config


def made_here(config: MadeElsewhere, watch: Watch = unwatched) -> Path:
    """Where images made elsewhere lie on this machine. Raises InputError where they cannot be fetched."""
    return fetched(config.images, watch) if is_far(config.images) else Path(config.images)


def far_places(config: ImageSetConfig) -> dict[str, str]:
    """What of an image set lies in object stores, by key."""
    return {key: place for key in PLACES if is_far(place := getattr(config, key))}


def images_shown(config: ImageSetConfig) -> ImageSetConfig:
    """The settings of an image set without credentials, for messages, and for names and contents of files."""
    places: dict[str, Any] = {key: without_credentials(place) for key, place in far_places(config).items()}
    return replace(config, **places) if places else config


def weights_shown(config: ModelConfig) -> ModelConfig:
    """The settings of a model without credentials."""
    return replace(config, weights=without_credentials(config.weights)) if is_far(config.weights) else config
