"""Image sets in a folder of image files."""

import csv
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from align_core.errors import InputError
from align_core.images.decoding import IMAGE_SUFFIXES, BadImage, Pixels, decode, starts_grey
from align_core.images.fit import Fit


class Folder:
    """A folder of image files. An id is the path relative to the folder.

    The label is the number of the sub-folder, in the order of their names, or is read from a CSV file.
    """

    def __init__(self, root: Path, labels: Path | None, fit: Fit) -> None:
        self.root, self.labels, self.fit = root, labels, fit
        if not root.is_dir():
            raise InputError(f"{root}: is a file, but an image set of kind folder needs a folder")

    @cached_property
    def _listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        labelled = self._from_csv() if self.labels else self._from_sub_folders()
        labelled.sort()
        return [image_id for image_id, _ in labelled], np.array([label for _, label in labelled], dtype=np.int64)

    def _from_sub_folders(self) -> list[tuple[str, int]]:
        classes = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        return [
            (file.relative_to(self.root).as_posix(), label)
            for label, name in enumerate(classes)
            for file in (self.root / name).rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]

    def _from_csv(self) -> list[tuple[str, int]]:
        assert self.labels is not None
        try:
            with open(self.labels, newline="", encoding="utf-8-sig") as file:
                labelled = [(Path(row["path"]).as_posix(), int(row["label"])) for row in csv.DictReader(file)]
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as problem:
            raise InputError(
                f"{self.labels}: needs the columns `path` and `label` (a number): {problem!r}"
            ) from problem
        if len({image_id for image_id, _ in labelled}) < len(labelled):
            raise InputError(f"{self.labels}: a path is listed twice")
        outside = [path for path, _ in labelled if Path(path).is_absolute() or ".." in Path(path).parts]
        if outside:
            raise InputError(f"{self.labels}: {outside[0]} leads out of {self.root}; paths are relative to it")
        return labelled

    @cached_property
    def _grey(self) -> bool:
        return starts_grey(self.root / image_id for image_id in self._listing[0])

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Relative paths in sorted order, and the label of each."""
        return self._listing

    def files(self) -> list[Path]:
        """The CSV file of labels, if any, and every image file."""
        return [*([self.labels] if self.labels else []), *(self.root / image_id for image_id in self._listing[0])]

    def read(self, image_id: str) -> Pixels:
        """Decodes the file and fits it. Raises BadImage where that is impossible."""
        return self.fit.apply(self.picture(image_id))

    def picture(self, image_id: str) -> Image.Image:
        """Decodes the file at its own size. Raises BadImage where that is impossible."""
        return decode(self.root / image_id, grey=self._grey)

    def encoded(self, image_id: str) -> bytes:
        """The content of the file. Raises BadImage where it cannot be read."""
        try:
            return (self.root / image_id).read_bytes()
        except OSError as problem:
            raise BadImage(f"cannot be read ({problem})") from problem
