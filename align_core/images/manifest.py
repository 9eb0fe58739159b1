"""The manifest of an image set: ids, labels, content hashes and unreadable images, found by reading every image once.

Later steps consult the manifest instead of the images, and the image set's hash in it goes into fingerprints.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from align_core.cpus import usable_cpus
from align_core.images import Fit, ImageSet, ImageSetConfig, open_image_set, selected
from align_core.images.decoding import BadImage


@dataclass(frozen=True)
class Manifest:
    """The N readable images of a set, in the order of their ids, and a list of the unreadable ones.

    Attributes:
        ids: sorted image ids.
        labels: int64 [N].
        contents: a hash of each image's decoded pixels.
        originals: a hash of what is stored of each image, before any crop.
        unreadable: id and reason of each image that is left out.
        shape: channels, height and width, the same for every image.
    """

    ids: list[str]
    labels: npt.NDArray[np.int64]
    contents: list[str]
    originals: list[str]
    unreadable: list[tuple[str, str]]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, ids, labels and pixels, in order: it changes with the images, not with their path."""
        return self._digest(self.contents)

    @cached_property
    def digest_of_originals(self) -> str:
        """SHA-256 over shape, ids, labels and what is stored of each image: for training on crops of the originals."""
        return self._digest(self.originals)

    def _digest(self, hashes: Sequence[str]) -> str:
        digest = hashlib.sha256(repr(self.shape).encode())
        for image_id, label, content in zip(self.ids, self.labels, hashes, strict=True):
            digest.update(f"{image_id}\0{label}\0{content}\n".encode())
        return digest.hexdigest()


def inspect_images(
    config: ImageSetConfig, image_size: int | Fit, progress: Callable[[int], None] = lambda count: None
) -> Manifest:
    """Reads every selected image once and records what is found.

    Unreadable images are recorded rather than raised, since it is the caller who decides whether they stop the run.

    Args:
        config: the image set.
        image_size: side in pixels at which images are read; a `Fit` also says how they are resized and cropped.
        progress: called after each image with the number of images read so far.

    Raises InputError where the set cannot be listed or selects no image.
    """
    image_set = open_image_set(config, image_size)
    all_ids, all_labels = image_set.listing()
    positions = selected(config, len(all_ids))
    ids, labels = [all_ids[p] for p in positions], all_labels[positions.start : positions.stop]
    threads = usable_cpus() if config.kind in ("folder", "parquet") else 1  # the other kinds need no decoding
    with ThreadPoolExecutor(threads) as pool:
        looks = []
        for count, look in enumerate(pool.map(lambda image_id: _look(image_set, image_id), ids), start=1):
            looks.append(look)
            progress(count)
    readable = [p for p, look in enumerate(looks) if isinstance(look, tuple)]
    contents, originals, shapes = zip(*(looks[p] for p in readable), strict=True) if readable else ((), (), ())
    return Manifest(
        ids=[ids[p] for p in readable],
        labels=labels[readable],
        contents=list(contents),
        originals=list(originals),
        unreadable=[(image_id, look) for image_id, look in zip(ids, looks, strict=True) if isinstance(look, str)],
        shape=shapes[0] if shapes else (0, image_set.fit.size, image_set.fit.size),
    )


def _look(image_set: ImageSet, image_id: str) -> tuple[str, str, tuple[int, ...]] | str:
    """Hashes of the image's pixels and of what is stored of it, and its shape; or the reason why it is unreadable."""
    try:
        pixels, original = image_set.read(image_id), image_set.encoded(image_id)
    except BadImage as problem:
        return str(problem)
    return _hash(pixels.tobytes()), _hash(original), pixels.shape


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
