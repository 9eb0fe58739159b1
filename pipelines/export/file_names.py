"""Names of image files: what an image id becomes where each image is a file of its own."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from align_core.images.decoding import IMAGE_SUFFIXES
from align_core.images.image_set import row_ids

_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names of its devices
_LONGEST_PART, _LONGEST = 200, 1000  # bytes; disks allow 255 for each part, and about 4,000 for a path


def png_names(ids: Sequence[str]) -> list[str]:
    """A relative path for each image: its id, ending in `.png` in place of the suffix of another kind of picture.

    Ids that cannot be the paths of files (they lead elsewhere, differ in capitals alone, are too long, and so on) are
    not used: then all images are named by their zero-padded rows.
    """
    names = [_png_name(image_id) for image_id in ids]
    alike = {_as_some_disks_have_it(name) for name in names}
    folders = {_as_some_disks_have_it(str(parent)) for name in names for parent in PurePosixPath(name).parents}
    if len(alike) < len(names) or alike & folders or not all(map(_is_safe, names)):
        return [f"{row}.png" for row in row_ids(len(ids))]
    return names


def _png_name(image_id: str) -> str:
    stem, dot, suffix = image_id.rpartition(".")
    return f"{stem if dot + suffix.lower() in IMAGE_SUFFIXES else image_id}.png"


def _as_some_disks_have_it(name: str) -> str:
    """The name without what some disks do not tell apart: capitals, and two ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_safe(name: str) -> bool:
    """Whether a name is a relative path on any disk, and hidden nowhere."""
    parts = name.split("/")
    is_plain = name.isprintable() and not set(name) & set('\\:*?"<>|') and not any(map(_OF_WINDOWS.fullmatch, parts))
    sizes = [len(part.encode("utf-8", "replace")) for part in parts]
    fits = max(sizes) <= _LONGEST_PART and sum(sizes) + len(parts) <= _LONGEST
    return is_plain and fits and all(part[:1] not in ("", ".", "_", " ") and part[-1] not in " ." for part in parts)
