"""Sentences about one image set, said on every run: what was left out, converted or resized, and what labels lack."""

from collections.abc import Mapping, Sequence

import numpy as np

from align_core.images.classes import ClassList
from align_core.images.inspection import Inspection
from align_core.images.labels import Labels

_SHOWN = 5
_NAMED = 10
_BY_BYTES = (
    "images are known by their stored bytes: one that is damaged behind its header ends the run when it is read, and "
    "one that another set has in other bytes is not recognised there"
)


def counted(count: int, noun: str = "image") -> str:
    """A number with its noun, in the plural where that is needed: `1 image`, `1,200 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def are(count: int, noun: str = "image") -> str:
    """The same as the subject of a sentence: `1 image is`, `1,200 images are`."""
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def listed(parts: Sequence[str], most: int = _SHOWN, between: str = "; ") -> str:
    """The first of these, and how many more there are."""
    more = [f"and {len(parts) - most:,} more"] if len(parts) > most else []
    return between.join([*parts[:most], *more])


def notes_of(found: Inspection, image_size: int, channels: int) -> list[str]:
    """How a set was read, what was left out of it, and what was done to its images."""
    notes = [*found.notes, *([_BY_BYTES] if found.config.is_by_bytes else [])]
    if found.unreadable:
        reasons = listed([f"{image_id}: {reason}" for image_id, reason in found.unreadable])
        notes.append(f"{are(len(found.unreadable), 'unreadable image')} left out ({reasons})")
    if files := sum(found.suffixes.values()):
        kinds = sorted(found.suffixes.items(), key=lambda kind: (-kind[1], kind[0]))
        shown = listed([f"{count:,} {suffix}" for suffix, count in kinds], _NAMED, ", ")
        kind = "Parquet file" if found.config.kind == "parquet" else "image"
        what = f"file that is no {kind} by its suffix" if files == 1 else f"files that are no {kind}s by their suffix"
        notes.append(f"left out {files:,} {what}: {shown}")
    if found.outside:
        notes.append(f"left out {counted(found.outside)} outside any class folder")
    facts, grey = found.facts, sum(found.is_grey)
    sentences = [
        (grey if channels == 3 else 0, "grey image", "used as RGB"),
        (len(found) - grey if channels == 1 else 0, "coloured image", "converted to grey"),
        (facts.get("enlarged", 0), "image", f"enlarged to {image_size} pixels"),
        (facts.get("reduced", 0), "image", f"reduced to {image_size} pixels"),
        (facts.get("alpha", 0), "image", "used without transparency"),
        (facts.get("frames", 0), "image of several frames", "used by the first frame"),
        (facts.get("orientation", 0), "image", "used as stored, whatever orientation its EXIF data name"),
    ]
    return notes + [f"{are(count, noun)} {what}" for count, noun, what in sentences if count]


def notes_on_classes(role: str, found: Inspection, labels: Mapping[str, Labels], known: ClassList) -> list[str]:
    """The classes that a set's selection loses, and those of other sets of which it has no image.

    `labels` are the class indices of every set, by its key below `data`.
    """
    config, notes = found.config, []
    lost = _indices_of_lost(role, found, known)
    if len(found.lost):
        wanted = config.sample or config.limit or found.available
        how = f"take {list(config.take)}" if config.take and not (config.limit or config.sample) else ""
        how = how or (f"sample {config.sample}" if config.sample else f"limit {config.limit}")
        kept = found.listed - len(found.lost)
        mend = "draws from all" if wanted >= found.listed else "draws from as many as it can"
        advice = "" if config.sample else f"; `sample: {wanted}` {mend}"
        notes.append(f"{how} keeps {kept:,} of {found.listed:,} classes{advice}")
    if config.sample is not None and config.sample > found.available:
        notes.append(f"sample {config.sample} is more than there are: all {counted(found.available)} are used")
    others = set(np.concatenate([own for other, own in labels.items() if other != role] or [labels[role]]).tolist())
    absent = sorted(others - set(labels[role].tolist()) - lost)
    if len(absent) > _NAMED:
        notes.append(f"no image of {len(absent):,} of the {len(others):,} classes that the other image sets have")
    elif absent:
        notes.append(f"no image of {', '.join(known.name(index) for index in absent)}, which another image set has")
    return notes


def _indices_of_lost(role: str, found: Inspection, known: ClassList) -> set[int]:
    lost, raw = found.lost, found.labels
    if raw.is_ordered:
        lost = lost[(lost >= 0) & (lost < len(raw.names))]
    elif raw.are_names and known.names is not None:
        lost = lost[np.isin(lost, known.names)]
    return set(known.indices(role, raw.with_values(lost)).tolist())
