"""PNG files, lossless and of 8 bits, with `labels.csv` as TransferAttack reads it: filename, label, targeted_label.

It has the ids, too, and the names of the classes where they have names.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from align_core.images.decoding import IMAGE_SUFFIXES, Pixels
from pipelines.export.exportable import Chunk, Exportable
from pipelines.export.file_names import png_names
from pipelines.storage.store import Store

LABELS = "labels.csv"


def write(images: Exportable, store: Store, path: str) -> None:
    """Writes a PNG file for each image into the folder `path`, and `labels.csv`; files that are there stay."""
    names, there = iter(png_names(images.ids)), _files_in(store, path)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    targeted = ["targeted_label"] if images.is_targeted else []
    classes = images.class_names
    rows.writerow(["filename", "label", *targeted, "image_id", *(["class"] if classes else [])])
    for chunk in images.read():
        towards = [[]] * len(chunk.ids) if chunk.towards_B is None else [[own] for own in chunk.towards_B.tolist()]
        for image_id, label, wanted, pixels in zip(
            chunk.ids, chunk.labels_B.tolist(), towards, chunk.pixels_BCHW, strict=True
        ):
            name = next(names)
            if name not in there:
                store.write(f"{path}/{name}", encoded(pixels))
            rows.writerow([name, label, *wanted, image_id, *([classes[label]] if classes else [])])
    store.write(f"{path}/{LABELS}", text.getvalue().encode())


def is_begun(images: Exportable, store: Store, path: str) -> bool:
    """Whether a folder has nothing in it but files that `write` would write, without `labels.csv`, which comes last."""
    names, there = png_names(images.ids), _files_in(store, path)
    if not there <= {*names}:
        return False
    own = iter(names)
    for chunk in images.read():
        for pixels in chunk.pixels_BCHW:
            name = next(own)
            if name in there and not _shows(store.read(f"{path}/{name}"), pixels):
                return False
    return True


def read(images: Exportable, store: Store, path: str) -> Iterator[Chunk]:
    """Decodes what was written, in chunks as long as those of `images`.

    Raises ValueError where other pictures are listed, or lie in the folder, which loaders would take for images, too.
    """
    names = png_names(images.ids)
    listed = list(csv.DictReader(io.StringIO(store.read(f"{path}/{LABELS}").decode(), newline="")))
    if [row["filename"] for row in listed] != names:
        raise ValueError(f"{LABELS} does not list the files of these {len(images)} images")
    pictures = {name for name in _files_in(store, path) if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES}
    if others := sorted(pictures - {*names}):
        more = f", nor are {len(others) - 1} more" if others[1:] else ""
        raise ValueError(f"{others[0]} in it is none of these images{more}")
    for positions in images.chunks:
        rows = listed[positions.start : positions.stop]
        towards = np.array([int(row["targeted_label"]) for row in rows]) if "targeted_label" in listed[0] else None
        labels = np.array([int(row["label"]) for row in rows])
        pixels = np.stack([decoded(store.read(f"{path}/{row['filename']}")) for row in rows])
        yield Chunk([row["image_id"] for row in rows], labels, towards, pixels)


def _files_in(store: Store, path: str) -> set[str]:
    """The paths of all files below a folder, relative to it."""
    files = {f"{folder}/{name}" for folder, names in store.listing(path).items() for name in names}
    return {file.removeprefix(f"{path}/") for file in files}


def _shows(content: bytes, pixels_CHW: Pixels) -> bool:
    """Whether these are the bytes of a PNG file with these pixels."""
    try:
        return np.array_equal(decoded(content), pixels_CHW)
    except (OSError, ValueError, SyntaxError):  # as Pillow raises them for damaged files
        return False


def encoded(pixels_CHW: Pixels) -> bytes:
    """An image as the bytes of a PNG file."""
    content = io.BytesIO()
    # Perturbations hardly compress: the usual level 6 takes four times as long, for files that are a fifth smaller.
    pixels = pixels_CHW[0] if len(pixels_CHW) == 1 else pixels_CHW.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG", compress_level=1)
    return content.getvalue()


def decoded(content: bytes) -> Pixels:
    """The pixels of a PNG file, uint8 [C, H, W]. Raises OSError or ValueError where it is no grey or RGB image."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        if picture.mode not in ("L", "RGB"):
            raise ValueError(f"a PNG file is of mode {picture.mode}")
        pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
