"""The manifests of an experiment's image sets: ids, class indices, content hashes, and what was left out or changed.

Later steps consult the manifest instead of the images, and the image set's hash in it goes into fingerprints.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError
from align_core.images.classes import class_list
from align_core.images.fit import Fit
from align_core.images.inspection import Inspection
from align_core.images.notes import notes_of, notes_on_classes
from align_core.images.targeted import targeted_classes


@dataclass(frozen=True)
class Manifest:
    """The N readable images of a set, in the order of their ids, and a list of the unreadable ones.

    Attributes:
        ids: sorted image ids.
        labels: class indices, int64 [N].
        contents: a hash of each image's decoded pixels; as `originals` for a set that is inspected by its stored bytes.
        originals: a hash of what is stored of each image, before any crop.
        unreadable: id and reason of each image that is left out.
        shape: channels, height and width, the same for every image.
        notes: what was left out, converted or resized, a sentence each; they are said on every run.
        towards: the class that each image is to be led to, int64 [N]; None where no attack asks the set for it.
        duplicates: every image of which a note says that it occurs twice, as `ID is ID`; the notes name the first ones.
        undecoded: how the stored bytes that `contents` are hashes of become pixels; None where they are of pixels.
        class_names: the names of the classes by index; None where only indices are known.
    """

    ids: list[str]
    labels: npt.NDArray[np.int64]
    contents: list[str]
    originals: list[str]
    unreadable: list[tuple[str, str]]
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    towards: npt.NDArray[np.int64] | None = None
    duplicates: tuple[str, ...] = ()
    undecoded: Fit | None = None
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, ids, labels and pixels, in order: it changes with the images, not with their path.

        Where pixels are not known it is taken over the stored bytes, and over what makes pixels of them.
        """
        fit = self.undecoded
        return self._digest(self.contents, () if fit is None else (fit.short_side, fit.interpolation))

    @cached_property
    def digest_of_originals(self) -> str:
        """SHA-256 over shape, ids, labels and what is stored of each image: for training on crops of the originals."""
        return self._digest(self.originals)

    @cached_property
    def digest_of_towards(self) -> str:
        """SHA-256 over the classes to lead to. It is no part of `digest`, because only some attacks depend on it."""
        return hashlib.sha256(repr(None if self.towards is None else self.towards.tolist()).encode()).hexdigest()

    def _digest(self, hashes: Sequence[str], fit: tuple[int | str, ...] = ()) -> str:
        digest = hashlib.sha256(repr((*self.shape, *fit)).encode())
        for image_id, label, content in zip(self.ids, self.labels, hashes, strict=True):
            digest.update(f"{image_id}\0{label}\0{content}\n".encode())
        return digest.hexdigest()

    def without(self, positions: Sequence[int], *notes: str, duplicates: Sequence[str] = ()) -> "Manifest":
        """The manifest without the images at these positions, and with further notes and duplicates."""
        kept = np.setdiff1d(np.arange(len(self)), np.asarray(positions, dtype=np.int64))
        return replace(
            self,
            ids=[self.ids[p] for p in kept],
            labels=self.labels[kept],
            contents=[self.contents[p] for p in kept],
            originals=[self.originals[p] for p in kept],
            notes=(*self.notes, *notes),
            towards=None if self.towards is None else self.towards[kept],
            duplicates=(*self.duplicates, *duplicates),
        )


def manifests_of(
    inspections: Mapping[str, Inspection],
    image_size: int | Fit,
    classes: int,
    names: tuple[str, ...] | None = None,
    channels: int | None = None,
    targeted: Collection[str] = (),
) -> dict[str, Manifest]:
    """The manifests of image sets that belong together, by their keys below `data`.

    Args:
        inspections: what was found in each set.
        image_size: side in pixels at which the images were read; a `Fit` also says how they were resized and cropped.
        classes: the number of classes.
        names: their names in order, where they are given.
        channels: of every image; by default three where any image of any set is coloured, else one.
        targeted: the sets that have to say to which class each of their images is to be led.

    Raises InputError where the sets do not agree on the classes, a label is no class, or a class to lead to is none.
    """
    fit = image_size if isinstance(image_size, Fit) else Fit(image_size)
    if channels is None:
        channels = 1 if all(all(found.is_grey) for found in inspections.values()) else 3
    known = class_list({role: found.labels for role, found in inspections.items()}, classes, names)
    labels = {role: known.indices(role, found.labels) for role, found in inspections.items()}
    for role, found in inspections.items():
        _check_range(role, found, labels[role], known.count)
    towards = {
        role: targeted_classes(role, inspections[role].targeted, inspections[role].ids, labels[role], known)
        for role in targeted
    }
    return {
        role: Manifest(
            ids=found.ids,
            labels=labels[role],
            contents=_contents(found, channels),
            originals=found.originals,
            unreadable=found.unreadable,
            shape=(channels, fit.size, fit.size),
            notes=(*notes_of(found, fit.size, channels), *notes_on_classes(role, found, labels, known)),
            towards=towards.get(role),
            undecoded=fit if found.config.is_by_bytes else None,
            class_names=known.names,
        )
        for role, found in inspections.items()
    }


def _contents(found: Inspection, channels: int) -> list[str]:
    """The hashes that images are known by: of their pixels, or of what is stored of them."""
    if found.config.is_by_bytes:
        return found.originals
    return found.in_grey if channels == 1 else found.in_colour


def _check_range(role: str, found: Inspection, labels: npt.NDArray[np.int64], classes: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = int(outside[0])
        may_be_from_1 = found.config.first_class != 1 and 0 not in labels
        is_from_1 = may_be_from_1 and (labels[outside] == classes).all()
        mend = f"{_if_from_1(role, found)}; " if is_from_1 else ""
        raise InputError(
            f"data.{role}: {len(outside)} labels lie outside 0 to {classes - 1}: image {found.ids[first]} has label "
            f"{int(labels[first])}; {mend}is data.classes right?"
        )


def _if_from_1(role: str, found: Inspection) -> str:
    """How to mend labels that seem to count from 1."""
    config = found.config
    if config.kind == "digits" or (config.kind == "folder" and config.labels is None):
        return "classes are numbered from 0: rename the folders, or give `data.classes` a file with their names"
    mend = f"classes are numbered from 0: if these count from 1, set data.{role}.first_class: 1"
    if found.labels.are_names:
        mend += ", and store them as integers, not as text"
    if config.kind == "folder":
        mend += ", or if their order is not that of the models' outputs, as ILSVRC2012_ID is not, give `label_names`"
    return mend
