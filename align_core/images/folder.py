"""Image sets in a folder of image files."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from align_core.errors import InputError, reason_of
from align_core.images.decoding import IMAGE_SUFFIXES, BadImage, Picture, decode
from align_core.images.files import check_regular, is_utf8, open_text, printable
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet
from align_core.images.labels import TARGETED, Labels, LeftOut, RawLabels, as_indices


class Listed(NamedTuple):
    """One image: its file, and its label and the class that it is to be led to as they are written."""

    file: Path
    label: str
    targeted: str | None = None


Labelled = dict[str, Listed]
"""Image id -> what is listed of it."""
_PATH_COLUMNS = ("path", "filename")


class Folder(ImageSet):
    """A folder of image files. An id is the path relative to the folder.

    The label is the name of the sub-folder that holds the image, or is read from a CSV file. Names that begin with a
    dot, and `__MACOSX`, are skipped: other programs leave them there.
    """

    def __init__(self, root: Path, labels: Path | None, fit: Fit, channels: int | None) -> None:
        super().__init__(fit, channels)
        self.root, self.csv = root, labels
        if not root.is_dir():
            raise InputError(f"{root}: is a file, but an image set of kind folder needs a folder")

    @cached_property
    def _class_folders(self) -> list[str]:
        return sorted(entry.name for entry in _entries(self.root) if entry.is_dir())

    @cached_property
    def _found(self) -> tuple[Labelled, LeftOut]:
        """Every image in the order of the ids, and what is left out."""
        labelled, left_out = (self._from_csv(), LeftOut()) if self.csv else self._from_sub_folders()
        return dict(sorted(labelled.items())), left_out

    def _from_sub_folders(self) -> tuple[Labelled, LeftOut]:
        labelled: Labelled = {}
        suffixes, refused = Counter[str](), {}
        for name in self._class_folders:
            for entry in _entries_below(self.root / name):
                suffix = Path(entry.name).suffix.lower()
                if suffix not in IMAGE_SUFFIXES:
                    kind = "linked folder" if entry.is_dir() else suffix or "without a suffix"
                    suffixes[printable(kind)] += 1
                    continue
                relative = Path(entry.path).relative_to(self.root).as_posix()
                labelled[printable(relative)] = Listed(Path(entry.path), printable(name))
                if not is_utf8(relative):
                    refused[printable(relative)] = "its name is not UTF-8; rename it"
        at_top = [Path(entry.name).suffix.lower() for entry in _entries(self.root) if not entry.is_dir()]
        return labelled, LeftOut(dict(suffixes), sum(suffix in IMAGE_SUFFIXES for suffix in at_top), refused)

    def _from_csv(self) -> Labelled:
        assert self.csv is not None
        labelled: Labelled = {}
        try:
            with open_text(self.csv) as file:
                rows = csv.DictReader(file)
                columns = rows.fieldnames or ()
                own = next((name for name in _PATH_COLUMNS if name in columns), _PATH_COLUMNS[0])
                for row in rows:
                    where = f"{self.csv}, line {rows.line_num}"
                    path = Path(row[own])
                    image_id = path.as_posix()
                    if path.is_absolute() or ".." in path.parts:
                        raise InputError(f"{where}: {path} leads out of {self.root}; paths are relative to it")
                    if image_id in labelled:
                        raise InputError(f"{where}: {image_id} is listed twice")
                    label = row["label"].strip()
                    if not label or (_is_number(label) and not _is_integer(label)):
                        raise InputError(f"{where}: the label {label!r} is neither a class index nor a class name")
                    targeted = (row[TARGETED] or "").strip() if TARGETED in columns else None
                    labelled[image_id] = Listed(self.root / path, label, targeted)
        except InputError:
            raise
        except (OSError, KeyError, TypeError, AttributeError, ValueError, csv.Error) as problem:
            raise InputError(
                f"{self.csv}: needs the columns `path` and `label`, or `filename` and `label`: {problem!r}"
            ) from problem
        return labelled

    def listing(self) -> tuple[list[str], Labels]:
        """Relative paths in sorted order, and the label of each."""
        ids, labels = list(self._found[0]), [one.label for one in self._found[0].values()]
        if self.csv is not None and all(map(_is_integer, labels)):
            return ids, as_indices([int(label) for label in labels], ids, self.csv)
        return ids, np.array(labels, dtype=np.str_)

    def labels(self) -> RawLabels:
        """The labels, and the names of all sub-folders, also of those without an image."""
        raw = RawLabels(self.listing()[1])
        names = map(printable, self._class_folders) if self.csv is None else np.unique(raw.values).tolist()
        return RawLabels(raw.values, tuple(names)) if raw.are_names else raw

    def targeted(self) -> RawLabels | None:
        """The column `targeted_label` of the CSV file."""
        written = [one.targeted for one in self._found[0].values() if one.targeted is not None]
        if self.csv is None or not written:
            return None
        if all(map(_is_integer, written)):
            return RawLabels(as_indices([int(name) for name in written], list(self._found[0]), self.csv))
        return RawLabels(np.array(written, dtype=np.str_))

    def left_out(self) -> LeftOut:
        """Files that are no images, images outside a class folder, and names that are not UTF-8."""
        return self._found[1]

    def files(self) -> list[Path]:
        """The CSV file of labels, if any, and every image file."""
        return [*([self.csv] if self.csv else []), *(one.file for one in self._found[0].values())]

    def decoded(self, image_id: str) -> Picture:
        """Decodes the file. Raises BadImage where that is impossible."""
        return decode(self.root / image_id)

    def encoded(self, image_id: str) -> bytes:
        """The bytes of the file. Raises BadImage where it cannot be read."""
        try:
            check_regular(self.root / image_id)
            return (self.root / image_id).read_bytes()
        except OSError as problem:
            raise BadImage(f"cannot be read ({reason_of(problem)})") from problem


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """What lies in a folder, without what is hidden. Raises InputError where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "." and entry.name != "__MACOSX"]
    except OSError as problem:
        raise InputError(f"{folder}: this folder cannot be listed ({reason_of(problem)})") from problem


def _entries_below(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Everything below a folder but folders, unless they are named as images are. Links are not followed."""
    folders = [folder]
    while folders:
        for entry in _entries(folders.pop()):
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder:
                folders.append(Path(entry.path))
            if not is_folder or Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield entry


def _is_integer(label: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,30}", label, re.ASCII) is not None


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
