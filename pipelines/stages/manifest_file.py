"""What was found in an image set as a file, under a name that changes with the settings and the files of the set."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from align_core.images import Fit, ImageSetConfig, open_image_set
from align_core.images.inspection import Inspection
from align_core.images.labels import RawLabels
from pipelines.compute.here import images_here, images_shown
from pipelines.experiment.paths import PLACES
from pipelines.storage.far import facts, is_far
from pipelines.storage.store import fingerprint_of

IMAGES = "images-"
"""How the names of such files begin."""
_COLUMNS = ("image_id", "label", "in_grey", "in_colour", "original", "is_grey")
_FORMATS = {"folder": 3, "parquet": 3, "digits": 3, "npz": 4}
"""By kind of image set. Raised by hand where the files change, or what is found, so that older ones are made anew."""


def manifest_file(config: ImageSetConfig, fit: Fit, channels: int | None) -> str:
    """The name under which what was found in an image set is stored.

    It is a hash of the settings and of path, size and modification time of every file of the set, so that a changed
    set is not mistaken for the one that was inspected. Of a set in an object store they are what the store says, and
    nothing is fetched. Raises InputError or OSError if the set cannot be opened.
    """
    settings = [_FORMATS[config.kind], images_shown(config).deciding, dataclasses.asdict(fit), channels]
    if is_far(config.path):
        return _name([*settings, _state_far(config)])
    config = images_here(config)
    image_set = open_image_set(config, fit, channels)
    state = [[str(file), *size_and_time(file)] for file in image_set.files()]
    listing = [dataclasses.asdict(image_set.left_out()), image_set.labels().names]
    return _name([*settings, state, *listing])


def _state_far(config: ImageSetConfig) -> list[object]:
    """What is known, without fetching them, of the files of a set of which the images lie in an object store."""
    given = [place for key in PLACES if (place := getattr(config, key)) is not None]
    return [facts(place) if is_far(place) else [place, *size_and_time(Path(place))] for place in given]


def _name(deciding: list[object]) -> str:
    return f"{IMAGES}{fingerprint_of(deciding)}.parquet"


def size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds of a file; (-1, -1) if it does not exist."""
    state = os.stat(file) if file.exists() else None
    return (state.st_size, state.st_mtime_ns) if state else (-1, -1)


def inspection_to_bytes(found: Inspection) -> bytes:
    """Writes what was found as a Parquet file: a row per image, and everything else in the metadata."""
    columns = {
        "image_id": found.ids,
        "label": found.labels.values.tolist(),
        "in_grey": found.in_grey,
        "in_colour": found.in_colour,
        "original": found.originals,
        "is_grey": found.is_grey,
    }
    if found.targeted is not None:
        columns["targeted"] = found.targeted.values.tolist()
    about = {
        "unreadable": found.unreadable,
        "are_names": found.labels.are_names,
        "names": found.labels.names,
        "is_ordered": found.labels.is_ordered,
        "lost": found.lost.tolist(),
        "listed": found.listed,
        "available": found.available,
        "facts": dict(found.facts),
        "suffixes": dict(found.suffixes),
        "outside": found.outside,
        "notes": found.notes,
        "targeted": found.targeted and [found.targeted.are_names, found.targeted.names, found.targeted.is_ordered],
    }
    table = pa.table(columns).replace_schema_metadata({"about": json.dumps(about)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def inspection_from_bytes(content: bytes, config: ImageSetConfig) -> Inspection | None:
    """Reads what `inspection_to_bytes` wrote; None where it is damaged, so that the images are inspected again."""
    try:
        table = pq.read_table(pa.BufferReader(content))
        about = json.loads((table.schema.metadata or {})[b"about"])
        columns = {name: table[name].to_pylist() for name in _COLUMNS}
        kind = np.str_ if about.pop("are_names") else np.int64
        targeted = about.pop("targeted")
        if targeted is not None:
            are_names, names, is_ordered = targeted
            values = np.array(table["targeted"].to_pylist(), np.str_ if are_names else np.int64)
            targeted = RawLabels(values, tuple(names), is_ordered)
        labels = RawLabels(np.array(columns["label"], kind), tuple(about.pop("names")), about.pop("is_ordered"))
        return Inspection(
            config=config,
            ids=columns["image_id"],
            labels=labels,
            in_grey=columns["in_grey"],
            in_colour=columns["in_colour"],
            originals=columns["original"],
            is_grey=columns["is_grey"],
            unreadable=[(image_id, reason) for image_id, reason in about.pop("unreadable")],
            lost=np.array(about.pop("lost"), kind),
            targeted=targeted,
            **about,
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return None
