"""What is found in one image set when every selected image is read once: decoded, or by its stored bytes alone."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from align_core.cpus import usable_cpus
from align_core.errors import InputError
from align_core.images.config import ImageSetConfig
from align_core.images.decoding import BadImage, Fact, Header
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet
from align_core.images.kinds import open_image_set
from align_core.images.labels import Labels, RawLabels
from align_core.images.selection import selected


@dataclass(frozen=True, slots=True)
class Look:
    """What is found in one image; the attributes are those of `Inspection` for it."""

    in_grey: str
    in_colour: str
    original: str
    is_grey: bool
    facts: frozenset[Fact]


Looking = Callable[[ImageSet, Sequence[str]], Iterator[Look | str]]
"""Looks at images of a set by their ids: what is found in each, in this order, or why it is unreadable."""


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
        in_colour: a hash of each image's pixels in three channels; "" where one channel was asked for. Both are "" for
            all images of a set that is inspected by its stored bytes.
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
    look: Looking | None = None,
) -> Inspection:
    """Reads every selected image once and records what is found.

    Unreadable images are recorded rather than raised, since it is the caller who decides whether they stop the run.

    Args:
        config: the image set, and whether its images are decoded or known by their stored bytes.
        image_size: side in pixels at which images are read; a `Fit` also says how they are resized and cropped.
        channels: that all images are to have; None where this is decided by what is found.
        progress: called after each image with the number of images read so far.
        look: looks at the images in another way than `looks`, by default, in threads of this process.

    Raises InputError where the set cannot be listed, is damaged, or selects no image, or `first_class` does not apply
    to it.
    """
    image_set = open_image_set(config, image_size, channels)
    all_ids, _ = image_set.listing()
    image_set.check()
    raw, left_out, targeted = image_set.labels(), image_set.left_out(), image_set.targeted()
    _check_numbers(config, raw)
    positions = selected(config, all_ids, raw.values)
    ids, labels = [all_ids[p] for p in positions], raw.values[positions]
    usable = [image_id for image_id in ids if image_id not in left_out.refused]
    looked_at = look(image_set, usable) if look else looks(image_set, usable, config)
    found: list[Look | str] = []
    for count, image_id in enumerate(ids, start=1):
        found.append(left_out.refused.get(image_id) or next(looked_at))
        progress(count)
    readable = [p for p, one in enumerate(found) if isinstance(one, Look)]
    seen = [one for one in found if isinstance(one, Look)]
    has_label = np.array([image_id not in left_out.refused for image_id in all_ids])
    listed = np.unique(raw.values[has_label])
    return Inspection(
        config=config,
        ids=[ids[p] for p in readable],
        labels=raw.with_values(labels[readable]),
        in_grey=[one.in_grey for one in seen],
        in_colour=[one.in_colour for one in seen],
        originals=[one.original for one in seen],
        is_grey=[one.is_grey for one in seen],
        unreadable=[(image_id, one) for image_id, one in zip(ids, found, strict=True) if isinstance(one, str)],
        lost=np.setdiff1d(listed, labels),
        listed=len(listed),
        available=len(all_ids) if config.take is None else config.take[1] - config.take[0],
        facts=dict(Counter(fact for one in seen for fact in one.facts)),
        suffixes=left_out.suffixes,
        outside=left_out.outside,
        targeted=targeted and targeted.with_values(targeted.values[[positions[p] for p in readable]]),
        notes=image_set.notes(),
    )


def _check_numbers(config: ImageSetConfig, raw: RawLabels) -> None:
    """Raises InputError where `first_class` is given, which says how integers count, and labels are text."""
    if config.first_class is not None and raw.are_names:
        raise InputError(
            f"{config.labels or config.path}: its labels are text, and `first_class` says how integers count classes: "
            "store the number of a class as an integer in every row, or, where these are class names, leave it out"
        )


def looks(
    image_set: ImageSet, image_ids: Sequence[str], config: ImageSetConfig, threads: int | None = None
) -> Iterator[Look | str]:
    """What is found in each of these images of an open set, in their order, or why it is unreadable.

    Args:
        config: the settings of the set.
        threads: at once; by default as many as there are CPUs for kinds whose images are encoded.
    """
    if threads is None:
        threads = usable_cpus() if config.is_encoded else 1
    look = _look_at_bytes if config.is_by_bytes else _look_at_pixels
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda image_id: _look_or_reason(look, image_set, image_id), image_ids)


def _look_or_reason(look: Callable[[ImageSet, str], Look], image_set: ImageSet, image_id: str) -> Look | str:
    try:
        return look(image_set, image_id)
    except BadImage as problem:
        return str(problem)


def _look_at_pixels(image_set: ImageSet, image_id: str) -> Look:
    """What is found in one image when it is decoded."""
    picture = image_set.decoded(image_id)
    pixels = image_set.fitted(picture.in_channels(image_set.channels))
    original = content_hash(image_set.encoded(image_id))
    in_grey = content_hash(pixels.tobytes()) if len(pixels) == 1 else ""
    # Three equal channels are what a grey image becomes in a set of colours.
    in_colour = (
        ""
        if image_set.channels == 1
        else content_hash((np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels).tobytes())
    )
    return Look(in_grey, in_colour, original, picture.is_grey, _facts(picture.header, image_set.fit))


def _look_at_bytes(image_set: ImageSet, image_id: str) -> Look:
    """What is found in one image by its stored bytes and its header."""
    stored, header = image_set.undecoded(image_id)
    image_set.check_fits(header.width, header.height)
    return Look("", "", content_hash(stored), header.is_grey, _facts(header, image_set.fit))


def _facts(header: Header, fit: Fit) -> frozenset[Fact]:
    """What is done to an image when it is decoded and fitted."""
    short, wanted = min(header.width, header.height), fit.short_side
    resized: set[Fact] = set() if short == wanted else {"enlarged" if short < wanted else "reduced"}
    return header.facts | resized


def content_hash(content: bytes) -> str:
    """A hash of an image's pixels, or of what is stored of it, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
