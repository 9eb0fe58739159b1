"""The images that attacks such as Admix mix in: some of the image set, the same for all workers and surrogates."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch

from align_core.attacks import Others
from align_core.images import Fit, ImageSetConfig
from align_core.images.manifest import Manifest
from pipelines.compute.images import opened, read_as_inspected

_MOST = 256  # at 224 pixels they take 39 MB of each worker's memory


@dataclass(frozen=True)
class Pool:
    """Where the images to mix in are.

    Args:
        key: of the image set in the experiment file.
        config, fit, channels: the image set, how its images are resized and cropped, and their channels.
        image_ids, labels, contents: of the images of the pool, and a hash by which each is known (`Manifest.contents`).
    """

    key: str
    config: ImageSetConfig
    fit: Fit
    channels: int
    image_ids: tuple[str, ...]
    labels: tuple[int, ...]
    contents: tuple[str, ...]

    def read(self, device: str) -> Others:
        """The images on a device; they are read once per process.

        Raises InputError for an image that is unreadable, or is not the one that was inspected.
        """
        return _read(self, device)


def pool_of(key: str, manifest: Manifest, config: ImageSetConfig, fit: Fit, seed: int) -> Pool:
    """At most 256 images of the set at this key, drawn by a hash of the seed and their ids."""

    def place(row: int) -> bytes:
        return blake2b(f"{seed}/others/{manifest.ids[row]}".encode(), digest_size=8).digest()

    rows = sorted(range(len(manifest)), key=place)[:_MOST]
    ids, contents = (tuple(values[row] for row in rows) for values in (manifest.ids, manifest.contents))
    return Pool(key, config, fit, manifest.shape[0], ids, tuple(manifest.labels[rows].tolist()), contents)


@lru_cache(maxsize=2)
def _read(pool: Pool, device: str) -> Others:
    image_set = opened(pool.config, pool.fit, pool.channels)
    pixels = read_as_inspected(pool.key, image_set, pool.image_ids, pool.contents, pool.config.is_by_bytes)
    return Others(torch.from_numpy(np.array(pixels)).to(device), torch.tensor(pool.labels, device=device))
