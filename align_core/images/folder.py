"""Image sets in a folder of image files."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from align_core.errors import InputError, reason_of
from align_core.images.config import ImageSetConfig
from align_core.images.decoding import IMAGE_SUFFIXES, BadImage, Header, Picture, decode, header_of
from align_core.images.files import check_regular, is_utf8, printable
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet
from align_core.images.label_file import GROUND_TRUTH_NAME, LabelFile, Row, is_integer, read_label_file
from align_core.images.label_names import FROM_META_MAT, read_label_names
from align_core.images.labels import Labels, LeftOut, RawLabels, as_indices, as_targeted, written_from_0


class Listed(NamedTuple):
    """One image: its file, and its label and the class that it is to be led to as they are written."""

    file: Path
    label: str
    targeted: str | None = None


Labelled = dict[str, Listed]
"""Image id -> what is listed of it."""


class Folder(ImageSet):
    """A folder of image files. An id is the path relative to the folder.

    The label is the name of the sub-folder that holds the image, or is read from a label file. Names that begin with a
    dot, and `__MACOSX`, are skipped: other programs leave them there.
    """

    def __init__(self, root: Path, config: ImageSetConfig, fit: Fit, channels: int | None) -> None:
        super().__init__(fit, channels)
        self.root, self.config = root, config
        self.label_file = Path(config.labels) if config.labels else None
        if not root.is_dir():
            raise InputError(f"{root}: is a file, but an image set of kind folder needs a folder")

    @cached_property
    def _class_folders(self) -> list[str]:
        return sorted(entry.name for entry in _entries(self.root) if entry.is_dir())

    @cached_property
    def _found(self) -> tuple[Labelled, LeftOut]:
        """Every image in the order of the ids, and what is left out."""
        labelled, left_out = self._from_sub_folders() if self._listed is None else (self._as_listed(), LeftOut())
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
        at_top = [Path(entry.name) for entry in _entries(self.root) if not entry.is_dir()]
        outside = sum(name.suffix.lower() in IMAGE_SUFFIXES for name in at_top)
        if outside and not labelled:
            raise InputError(self._all_outside(outside, at_top))
        return labelled, LeftOut(dict(suffixes), outside, refused)

    def _all_outside(self, count: int, at_top: Sequence[Path]) -> str:
        """What is to be done about a folder whose images are all at its top."""
        found = sorted(self.root / name for name in at_top if name.suffix.lower() in (".csv", ".txt"))
        named = f" (is that {printable(str(found[0]))}?)" if found else ""
        lie = "image lies" if count == 1 else "images lie"
        return (
            f"{self.root}: {count:,} {lie} outside any class folder, and none in one; each class needs a folder, or a "
            f"`labels` file lists the label of each image{named}"
        )

    @cached_property
    def _listed(self) -> LabelFile | None:
        """What the label file says, if there is one."""
        if self.label_file is None:
            return None
        if not self.label_file.exists() and (inside := self.root / self.label_file.name).is_file():
            raise InputError(
                f"{self.label_file}: there is no such file, but there is {inside}; write the folder into `labels`, "
                f"too, as in {self.root.name}/{inside.name}"
            )
        return read_label_file(self.label_file, self.config.image_column, self.config.label_column)

    @cached_property
    def _names(self) -> dict[int, str]:
        """The class name of each number in the label file; none where its numbers count the classes."""
        if self.config.label_names is not None:
            return read_label_names(Path(self.config.label_names))
        if self._listed is not None and self._listed.form.needs_names and self._listed.has_integers:
            raise InputError(
                f"{self.label_file}: holds numbers in an order of their own (ILSVRC2012_ID), which is not that of the "
                f"models' outputs: give `label_names`, a CSV file with the synset of each number; {FROM_META_MAT}"
            )
        return {}

    @cached_property
    def _first_class(self) -> int:
        """The number of the first class, where labels count the classes."""
        if self.config.first_class is not None or self._listed is None:
            return self.config.first_class or 0
        return self._listed.form.first

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """The names of the images that lie in the folder itself, by their names without a suffix."""
        names: dict[str, list[str]] = {}
        for entry in _entries(self.root):
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                names.setdefault(Path(entry.name).stem, []).append(entry.name)
        return names

    def _as_listed(self) -> Labelled:
        assert self._listed is not None
        labelled: Labelled = {}
        for row in self._listed.rows:
            where = f"{self.label_file}, line {row.line}"
            path = self._path_of(row, where)
            image_id = path.as_posix()
            if image_id in labelled:
                raise InputError(f"{where}: {image_id} is listed twice")
            labelled[image_id] = Listed(self.root / path, self._label_of(row, where), self._targeted_of(row))
        if labelled and not any(os.path.exists(one.file) for one in labelled.values()):
            raise InputError(
                f"{self.label_file}: none of the {len(labelled):,} images that it lists is in {self.root}, such as "
                f"{next(iter(labelled))}; is `path` the folder of the images?"
            )
        self._check_all_lines_are_there()
        return labelled

    def _path_of(self, row: Row, where: str) -> Path:
        """The path of an image relative to the folder. A name without a suffix may be that of a file with one."""
        path = Path(row.image)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{where}: {path} leads out of {self.root}; paths are relative to it")
        if path.suffix.lower() in IMAGE_SUFFIXES or os.path.exists(self.root / path):
            return path
        found = self._by_stem.get(row.image, [row.image])
        if len(found) > 1:
            raise InputError(f"{where}: {row.image} may be {' or '.join(sorted(found))} in {self.root}; remove one")
        return Path(found[0])

    def _label_of(self, row: Row, where: str) -> str:
        """The label of an image as a class name or a number. Raises InputError for a number that has no name."""
        label = self._named(row.label)
        if self._names and is_integer(label):
            raise InputError(f"{where}: the number {label} is not in {self.config.label_names}")
        return label

    def _targeted_of(self, row: Row) -> str | None:
        """The class that an image is to be led to. A number that has no name says so, lest it pass for an index."""
        targeted = row.targeted and self._named(row.targeted)
        if targeted and self._names and is_integer(targeted):
            return f"{targeted}, which is not in {self.config.label_names}"
        return targeted

    def _named(self, label: str) -> str:
        """The class name of a number, where numbers have names."""
        return self._names.get(int(label), label) if is_integer(label) else label

    def _check_all_lines_are_there(self) -> None:
        """Raises InputError where the file has a line for each image, and the folder more images than it has lines."""
        if self._listed is None or not self._listed.form.needs_names:
            return
        lines = len(self._listed.rows)
        if (next_name := GROUND_TRUTH_NAME.format(lines + 1)) in self._by_stem:
            raise InputError(f"{self.label_file}: ends after {lines:,} lines, and {self.root} has an image {next_name}")

    def listing(self) -> tuple[list[str], Labels]:
        """Relative paths in sorted order, and the label of each."""
        ids, labels = list(self._found[0]), [one.label for one in self._found[0].values()]
        if self.label_file is not None and all(map(is_integer, labels)):
            return ids, as_indices([int(label) for label in labels], ids, self.label_file, self._first_class)
        return ids, np.array(labels, dtype=np.str_)

    def labels(self) -> RawLabels:
        """The labels, and the names of all sub-folders, or of all numbers, also of those without an image."""
        raw = RawLabels(self.listing()[1])
        if not raw.are_names:
            return raw
        if self.label_file is None:
            return RawLabels(raw.values, tuple(map(printable, self._class_folders)))
        return RawLabels(raw.values, tuple(sorted({*raw.values.tolist(), *self._names.values()})))

    def targeted(self) -> RawLabels | None:
        """The classes to lead to, in the column that the form of the label file has for them."""
        written = [one.targeted for one in self._found[0].values() if one.targeted is not None]
        if self.label_file is None or not written:
            return None
        if all(is_integer(name) for name in written if name):
            ids, numbers = list(self._found[0]), [int(name) if name else -1 for name in written]
            return RawLabels(as_targeted(numbers, ids, self.label_file, self._first_class))
        return RawLabels(written_from_0(written, self._first_class))

    def notes(self) -> list[str]:
        """The form of a label file that is not our own, and what its numbers stand for."""
        listed = self._listed
        if listed is None or not (listed.form.whose or self._names or self._first_class):
            return []
        about = f"in the form of {listed.form.whose}" if listed.form.whose else f"by its column `{listed.form.label}`"
        numbers = f"numbers from {self._first_class}" if listed.has_integers else "names"
        if self._names:
            numbers = f"numbers with the names in {Path(str(self.config.label_names)).name}"
        return [f"{listed.file.name} is read {about}: classes are {numbers}"]

    def left_out(self) -> LeftOut:
        """Files that are no images, images outside a class folder, and names that are not UTF-8."""
        return self._found[1]

    def files(self) -> list[Path]:
        """The label file and its list of names, if any, and every image file."""
        given = [Path(file) for file in (self.config.labels, self.config.label_names) if file is not None]
        return [*given, *(one.file for one in self._found[0].values())]

    def file_of(self, image_id: str) -> Path:
        """The file of one image."""
        return self._found[0][image_id].file

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

    def undecoded(self, image_id: str) -> tuple[bytes, Header]:
        """The bytes of the file, and its header. Raises BadImage where either cannot be read."""
        stored = self.encoded(image_id)
        return stored, header_of(stored)


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
