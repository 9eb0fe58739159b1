"""What is found in one image set when every selected image is read once."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from align_core.cpus import usable_cpus
from align_core.images.config import ImageSetConfig
from align_core.images.decoding import BadImage, Fact
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet
from align_core.images.kinds import open_image_set
from align_core.images.labels import Labels, RawLabels
from align_core.images.selection import selected


@dataclass(frozen=True)
class Inspection:
    """The N readable images of a set, in the order of their ids, and what was left out or changed.

    Labels are as the set lists them, and colour is each image's own: what class a name stands for, and whether grey
    images become RGB, depends on the other sets of an experiment (`align_core.images.manifest`).

    Attributes:
        config: the settings of the set.
        ids: sorted image ids.
        labels: of these images.
        in_grey: a hash of each image's pixels in one channel; "" for coloured images, unless one channel was asked for.
        in_colour: a hash of each image's pixels in three channels; "" where one channel was asked for.
        originals: a hash of what is stored of each image, before any crop.
        is_grey: whether each image is grey by itself.
        unreadable: id and reason of each selected image that is left out.
        lost: one label of each class that the set lists and the selection leaves without an image.
        listed: number of classes that the set lists.
        available: number of images from which `limit` and `sample` choose.
        facts: what was done to how many images.
        suffixes: number of files, by suffix, that are no images.
        outside: number of images outside any class folder.
        targeted: the class that each of these images is to be led to, where the set lists any.
        notes: how the set was read where that is not evident, a sentence each.
    """

    config: ImageSetConfig
    ids: list[str]
    labels: RawLabels
    in_grey: list[str]
    in_colour: list[str]
    originals: list[str]
    is_grey: list[bool]
    unreadable: list[tuple[str, str]]
    lost: Labels
    listed: int
    available: int
    facts: Mapping[Fact, int] = field(default_factory=dict)
    suffixes: Mapping[str, int] = field(default_factory=dict)
    outside: int = 0
    targeted: RawLabels | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


def inspect_images(
    config: ImageSetConfig,
    image_size: int | Fit,
    channels: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Inspection:
    """Reads every selected image once and records what is found.

    Unreadable images are recorded rather than raised, since it is the caller who decides whether they stop the run.

    Args:
        config: the image set.
        image_size: side in pixels at which images are read; a `Fit` also says how they are resized and cropped.
        channels: that all images are to have; None where this is decided by what is found.
        progress: called after each image with the number of images read so far.

    Raises InputError where the set cannot be listed or selects no image.
    """
    image_set = open_image_set(config, image_size, channels)
    all_ids, _ = image_set.listing()
    raw, left_out, targeted = image_set.labels(), image_set.left_out(), image_set.targeted()
    positions = selected(config, all_ids, raw.values)
    ids, labels = [all_ids[p] for p in positions], raw.values[positions]
    threads = usable_cpus() if config.kind in ("folder", "parquet") else 1  # the other kinds need no decoding
    looks: list[_Look | str] = []
    with ThreadPoolExecutor(threads) as pool:
        for count, look in enumerate(pool.map(lambda i: left_out.refused.get(i) or _look(image_set, i), ids), start=1):
            looks.append(look)
            progress(count)
    readable = [p for p, look in enumerate(looks) if isinstance(look, _Look)]
    seen = [look for look in looks if isinstance(look, _Look)]
    has_label = np.array([image_id not in left_out.refused for image_id in all_ids])
    listed = np.unique(raw.values[has_label])
    return Inspection(
        config=config,
        ids=[ids[p] for p in readable],
        labels=raw.with_values(labels[readable]),
        in_grey=[look.in_grey for look in seen],
        in_colour=[look.in_colour for look in seen],
        originals=[look.original for look in seen],
        is_grey=[look.is_grey for look in seen],
        unreadable=[(image_id, look) for image_id, look in zip(ids, looks, strict=True) if isinstance(look, str)],
        lost=np.setdiff1d(listed, labels),
        listed=len(listed),
        available=len(all_ids) if config.take is None else config.take[1] - config.take[0],
        facts=dict(Counter(fact for look in seen for fact in look.facts)),
        suffixes=left_out.suffixes,
        outside=left_out.outside,
        targeted=targeted and targeted.with_values(targeted.values[[positions[p] for p in readable]]),
        notes=image_set.notes(),
    )


@dataclass(frozen=True)
class _Look:
    in_grey: str
    in_colour: str
    original: str
    is_grey: bool
    facts: frozenset[Fact]


def _look(image_set: ImageSet, image_id: str) -> _Look | str:
    """What is found in one image, or the reason why it is unreadable."""
    try:
        picture = image_set.decoded(image_id)
        pixels = image_set.fitted(picture.in_channels(image_set.channels))
        original = content_hash(image_set.encoded(image_id))
    except BadImage as problem:
        return str(problem)
    short, wanted = min(picture.image.size), image_set.fit.short_side
    resized: set[Fact] = set() if short == wanted else {"enlarged" if short < wanted else "reduced"}
    in_grey = content_hash(pixels.tobytes()) if len(pixels) == 1 else ""
    # Three equal channels are what a grey image becomes in a set of colours.
    in_colour = (
        ""
        if image_set.channels == 1
        else content_hash((np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels).tobytes())
    )
    return _Look(in_grey, in_colour, original, picture.is_grey, picture.facts | resized)


def content_hash(content: bytes) -> str:
    """A hash of an image's pixels, or of what is stored of it, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
