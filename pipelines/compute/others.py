"""The images that attacks such as Admix mix in: some of the image set, the same for all workers and surrogates."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch

from align_core.attacks import Others
from align_core.images import Fit, ImageSetConfig, read_images
from pipelines.compute.images import opened

_MOST = 256  # at 224 pixels they take 39 MB of each worker's memory


@dataclass(frozen=True)
class Pool:
    """Where the images to mix in are.

    Args:
        config, fit, channels: the image set, how its images are resized and cropped, and their channels.
        image_ids, labels: of the images of the pool.
    """

    config: ImageSetConfig
    fit: Fit
    channels: int
    image_ids: tuple[str, ...]
    labels: tuple[int, ...]

    def read(self, device: str) -> Others:
        """The images on a device; they are read once per process. Raises InputError for an unreadable image."""
        return _read(self, device)


def pool_of(
    config: ImageSetConfig, fit: Fit, channels: int, image_ids: Sequence[str], labels: Sequence[int], seed: int
) -> Pool:
    """At most 256 images of a set, drawn by a hash of the seed and their ids."""

    def place(row: int) -> bytes:
        return blake2b(f"{seed}/others/{image_ids[row]}".encode(), digest_size=8).digest()

    rows = sorted(range(len(image_ids)), key=place)[:_MOST]
    ids, own = tuple(image_ids[row] for row in rows), tuple(int(labels[row]) for row in rows)
    return Pool(config, fit, channels, ids, own)


@lru_cache(maxsize=2)
def _read(pool: Pool, device: str) -> Others:
    pixels = read_images(opened(pool.config, pool.fit, pool.channels), list(pool.image_ids))
    return Others(torch.from_numpy(np.array(pixels)).to(device), torch.tensor(pool.labels, device=device))
