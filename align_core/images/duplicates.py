"""Images that occur twice, pixel for pixel, in one image set or in two.

An image in two sets would let a surrogate be aligned, or settings be chosen, on what the results are reported on. Sets
that are inspected by their stored bytes are compared by these, with each other and with all sets.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from align_core.errors import InputError
from align_core.images.manifest import Manifest
from align_core.images.notes import are, counted, listed
from align_core.images.shards import SEVERAL_SPLITS

OnDuplicate = Literal["stop", "skip"]
_ORDER = ("test", "validation", "train")
_NAMED = 20


def without_duplicates(manifests: Mapping[str, Manifest], on_duplicate: OnDuplicate = "stop") -> dict[str, Manifest]:
    """The manifests of an experiment's image sets, by their keys below `data`, with duplicates dealt with.

    Equal images of one label within a set are only noted. Equal images of different labels, of which at most one label
    can be right, and images in two sets raise InputError, which names them. With `skip`, nothing is raised: of equal
    images of one label the first is kept, of those with different labels none, and an image of two sets is left to the
    test images before the validation images, and to these before the training images.

    Raises InputError, too, where nothing is left of a set.
    """
    if on_duplicate == "stop":
        _check_labels(manifests)
        _check_disjoint(manifests)
        return {role: _with_repeated(manifest) for role, manifest in manifests.items()}
    kept = {role: _without_repeated(manifest) for role, manifest in manifests.items()}
    ordered = sorted(kept, key=lambda role: _ORDER.index(role) if role in _ORDER else len(_ORDER))
    for first, second in combinations(ordered, 2):
        later, compared = kept[second], _compared(kept[first], kept[second])
        of_content = dict(zip(compared.first, kept[first].ids, strict=True))
        shared = [p for p, content in enumerate(compared.second) if content in of_content]
        if shared:
            pairs = [f"{later.ids[p]} is {of_content[compared.second[p]]}" for p in shared]
            what = f"{are(len(shared))} in data.{first} as well, {compared.how}, and left out here"
            named = [f"{pair} of data.{first}" for pair in pairs]
            kept[second] = later.without(shared, f"{what} ({listed(pairs, _NAMED)})", duplicates=named)
    for role, manifest in kept.items():
        if not len(manifest):
            raise InputError(f"data.{role}: no image is left when duplicates are left out")
    return {role: kept[role] for role in manifests}


class _Compared(NamedTuple):
    """The hashes by which two sets are compared, and in words how."""

    first: list[str]
    second: list[str]
    how: str


def _compared(first: Manifest, second: Manifest) -> _Compared:
    if first.undecoded or second.undecoded:
        return _Compared(first.originals, second.originals, "byte for byte")
    return _Compared(first.contents, second.contents, "pixel for pixel")


def _how(manifest: Manifest) -> str:
    """How the images of one set are compared, in words."""
    return _compared(manifest, manifest).how


def _groups(manifest: Manifest) -> list[list[int]]:
    """Positions of equal images, a list for each image that occurs more than once."""
    of_content: dict[str, list[int]] = {}
    for position, content in enumerate(manifest.contents):
        of_content.setdefault(content, []).append(position)
    return [group for group in of_content.values() if len(group) > 1]


def _is_consistent(manifest: Manifest, group: Sequence[int]) -> bool:
    return len(np.unique(manifest.labels[list(group)])) == 1


def _pairs(manifest: Manifest, groups: Sequence[Sequence[int]]) -> list[str]:
    return [f"{manifest.ids[other]} is {manifest.ids[group[0]]}" for group in groups for other in group[1:]]


def _with_repeated(manifest: Manifest) -> Manifest:
    pairs = _pairs(manifest, _groups(manifest))
    if not pairs:
        return manifest
    what = f"{are(len(pairs))} in the set already, {_how(manifest)}, and counted again"
    return manifest.without([], f"{what} ({listed(pairs, _NAMED)})", duplicates=pairs)


def _without_repeated(manifest: Manifest) -> Manifest:
    groups = _groups(manifest)
    same = [group for group in groups if _is_consistent(manifest, group)]
    differing = [group for group in groups if not _is_consistent(manifest, group)]
    again, unclear = [p for group in same for p in group[1:]], [p for group in differing for p in group]
    notes = []
    if again:
        pairs = listed(_pairs(manifest, same), _NAMED)
        notes.append(f"{are(len(again))} in the set already, {_how(manifest)}, and left out ({pairs})")
    if unclear:
        pairs = listed(_pairs(manifest, differing), _NAMED)
        what = f"{are(len(unclear))} in the set with different labels"
        notes.append(f"{what}, {_how(manifest)}, and left out ({pairs})")
    return manifest.without([*again, *unclear], *notes, duplicates=_pairs(manifest, groups))


def _check_labels(manifests: Mapping[str, Manifest]) -> None:
    for role, manifest in manifests.items():
        differing = [group for group in _groups(manifest) if not _is_consistent(manifest, group)]
        if differing:
            ids, labels = manifest.ids, manifest.labels
            named = [
                f"{ids[other]} has {labels[other]}, {ids[first]} {labels[first]}"
                for first, *others in differing
                for other in others
            ]
            raise InputError(
                f"data.{role}: {counted(sum(map(len, differing)))} have different labels, and are the same "
                f"{_how(manifest)} ({listed(named, _NAMED)}). Correct the labels, or leave all of these out with "
                "data.on_duplicate: skip"
            )


def _check_disjoint(manifests: Mapping[str, Manifest]) -> None:
    overlaps, mixed = [], dict[str, str]()
    for (one, a), (other, b) in combinations(manifests.items(), 2):
        compared = _compared(a, b)
        ids = dict(zip(compared.first, a.ids, strict=True))
        shared = [f"{ids[content]} is {i}" for content, i in zip(compared.second, b.ids, strict=True) if content in ids]
        if shared:
            overlaps.append(
                f"data.{one} and data.{other} overlap: {counted(len(shared))} in both, {compared.how} "
                f"({listed(shared, _NAMED)})"
            )
            mixed |= {role: note for role in (one, other) for note in _several_splits(manifests[role])}
    if overlaps:
        mend = "separate them, or leave such images out of the training images with data.on_duplicate: skip"
        if mixed:
            mend = "; ".join(f"in data.{role}, {note}" for role, note in mixed.items())
        raise InputError(f"{'; '.join(overlaps)}. Alignment, validation and test images must be disjoint: {mend}")


def _several_splits(manifest: Manifest) -> list[str]:
    """What is noted of files of several splits in one set, which then is likely to hold the images of others."""
    return [note for note in manifest.notes if note.startswith(SEVERAL_SPLITS)]
