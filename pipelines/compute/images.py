"""Image sets in a worker's hands: each is opened once in a process, and stays open for further work."""

from functools import lru_cache

from align_core.data import ImageSet, ImageSetConfig, open_image_set


@lru_cache(maxsize=4)
def opened(config: ImageSetConfig, image_size: int) -> ImageSet:
    """The image set, open."""
    return open_image_set(config, image_size)
