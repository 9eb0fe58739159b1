"""Adversarial images that another program made, matched with the test images and checked to lie in their ball.

They come as one of

* a folder of picture files, each named by the id of its test image, or by that id's file name, whatever the suffix; or
  listed in a file `labels.csv` in the folder with the columns `filename` and `image_id`, as `witness export` writes it;
* a Parquet file, or a folder of them, as image sets of that kind have it: the columns `image` and `label`, and perhaps
  `image_id`;
* an npz file with the array `images`, and perhaps `ids`;
* an npy file with the array alone.

An array is uint8 [N, H, W, C], [N, C, H, W] or [N, H, W]. Without ids, rows are in the order of the test images' ids,
and there must be as many. Nothing here imports torch.
"""

import posixpath
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from align_core.attacks.lengths import ball_named, levels_of, lost_to_8_bits, square_levels_of
from align_core.attacks.made_elsewhere import MadeElsewhere
from align_core.errors import InputError
from align_core.images.config import ImageSetConfig
from align_core.images.csv_table import CsvTable, read_text
from align_core.images.decoding import IMAGE_SUFFIXES, BadImage, Picture, Pixels, decode
from align_core.images.files import check_regular, printable
from align_core.images.fit import Fit
from align_core.images.npz import array_of, check_mapped, mapped_array, why_unreadable

_NAMED = 3
_LOSSY = {".jpg", ".jpeg", ".webp"}
_LABELS, _FILE, _ID = "labels.csv", "filename", "image_id"
_PARQUET = ".parquet"


class MadeImages(Protocol):
    """The images that belong to N test images.

    Attributes:
        files: what they are read from.
        notes: what a user should know of how they were matched, a sentence each.
    """

    files: list[Path]
    notes: list[str]

    def read(self, position: int) -> Pixels:
        """The image that belongs to the test image at a position: uint8 [C, H, W]. Raises InputError."""
        ...


def open_made_images(path: Path, ids: Sequence[str], shape: tuple[int, int, int]) -> MadeImages:
    """Opens images made elsewhere, and matches them with test images of these ids and this shape (C, H, W).

    Raises InputError where there are none, where a test image has none, or where they are of another size or type.
    """
    if path.is_dir():
        pictures = list(_pictures_below(path))
        is_parquet = not pictures and any(file.suffix.lower() == _PARQUET for file in path.rglob("*"))
        return _Parquet(path, ids, shape) if is_parquet else _Pictures(path, pictures, ids, shape)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.suffix.lower() == _PARQUET:
        return _Parquet(path, ids, shape)
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(
            f"{path}: images made elsewhere are a folder of picture files, or a .parquet, .npz or .npy file"
        )
    return _Rows(path, ids, shape)


def check_files(images: MadeImages) -> None:
    """Raises InputError for damage to the files that reading images would not show. It may read all of them."""
    for file in dict.fromkeys(images.files):
        if file.suffix.lower() == ".npz":
            check_mapped(file)


@dataclass
class Ball:
    """Checks images against the ball around their test images, chunk after chunk, and remembers which lie outside.

    Args:
        attack: the settings that say how large the ball is.
    """

    attack: MadeElsewhere
    _outside: list[tuple[str, float]] = field(default_factory=list)
    _seen: int = 0
    _same: int = 0

    def look(self, ids: Sequence[str], made_BCHW: Pixels, clean_BCHW: Pixels) -> None:
        """Looks at some images and their test images, uint8 [B, C, H, W] each."""
        levels_BP = np.abs(made_BCHW.astype(np.int64) - clean_BCHW).reshape(len(ids), -1)
        if self.attack.norm == "linf":
            distance_B, most = levels_BP.max(axis=1), levels_of(self.attack.eps)
        else:
            distance_B, most = (levels_BP**2).sum(axis=1), square_levels_of(self.attack.eps)
        self._seen += len(ids)
        self._same += int((distance_B == 0).sum())
        distances = zip(ids, distance_B.tolist(), strict=True)
        self._outside += [(name, distance) for name, distance in distances if distance > most]

    def check(self, files: Collection[Path] = ()) -> None:
        """Raises InputError, naming the first images and their distances, where any of those in `files` is outside."""
        if not self._outside:
            return
        furthest = max(distance for _, distance in self._outside)
        named = ", ".join(f"{name} ({self._text(distance)})" for name, distance in self._outside[:_NAMED])
        more = f" and {len(self._outside) - _NAMED:,} more" if len(self._outside) > _NAMED else ""
        ball = f"{self.attack.norm} ball of {ball_named(self.attack.eps, self.attack.norm)}"
        raise InputError(
            f"{len(self._outside):,} of {self._seen:,} images lie outside the {ball} around their test "
            f"images: {named}{more}. The furthest is {self._text(furthest)} away; eps must be at least "
            f"that, unless these images were made of others, or are in another order{self._hint(files, furthest)}"
        )

    def _hint(self, files: Collection[Path], furthest: float) -> str:
        """What may have taken them out of a ball in which they were."""
        if any(file.suffix.lower() in _LOSSY for file in files):
            return ". JPEG and WebP do not keep pixels as they were: save PNG files or an array"
        if lost_to_8_bits(self.attack.eps, self.attack.norm):
            return ""
        if self.attack.norm == "linf" and furthest == levels_of(self.attack.eps) + 1:
            return ". One level beyond is what rounding to 8 bits can add: round towards the test image"
        return ""

    @property
    def notes(self) -> list[str]:
        """What a user should know of images that lie inside."""
        if not self._same:
            return []
        return [f"{self._same:,} of {self._seen:,} images are the test images as they are, without a perturbation"]

    def _text(self, distance: float) -> str:
        """A distance in 8-bit levels, or its square in l2, as messages have it: not below what eps has to be."""
        if self.attack.norm == "linf":
            return f"{distance:.0f}/255"
        return f"{np.ceil(np.sqrt(distance) / 255 * 1e4) / 1e4:.4f}"


class _Pictures:
    """Picture files in a folder."""

    def __init__(self, folder: Path, files: Iterable[Path], ids: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.shape, self.notes = shape, list[str]()
        found = {file.relative_to(folder).as_posix(): file for file in files}
        if not found:
            raise InputError(f"{folder}: there are no picture files in this folder")
        own = (_listed(folder, found, ids) if (folder / _LABELS).is_file() else {}) or _by_names(found, ids)
        missing = [image_id for image_id in ids if image_id not in own]
        _refuse_missing(folder, missing, len(ids), _of_folder(found, set(own.values()), missing), found)
        self.files = [own[image_id] for image_id in ids]
        twice = [file for file, count in Counter(self.files).items() if count > 1]
        if twice:
            raise InputError(
                f"{printable(str(twice[0]))}: it would belong to several test images; name each file by its image's id"
            )
        if others := sorted(found.keys() - {file.relative_to(folder).as_posix() for file in self.files}):
            self.notes.append(_left_out(others))

    def read(self, position: int) -> Pixels:
        """The decoded file of one test image, uint8 [C, H, W]. Raises InputError for another shape."""
        file = self.files[position]
        try:
            picture = decode(file)
        except BadImage as problem:
            raise InputError(f"{file}: {problem}") from problem
        return _pixels_of(picture, str(file), self.shape)


class _Parquet:
    """The pictures, or tensors, of Parquet files."""

    def __init__(self, path: Path, ids: Sequence[str], shape: tuple[int, int, int]) -> None:
        from align_core.images.parquet import Parquet  # with pyarrow, which nothing else here needs

        self.path, self.shape = path, shape
        self._images = Parquet(path, ImageSetConfig(kind="parquet", path=str(path)), Fit(shape[1]), None)
        own, _ = self._images.listing()
        rows, notes = _matched(path, len(own), own if self._images.has_ids else None, ids)
        self._own, self.files, self.notes = [own[row] for row in rows], self._images.files(), notes

    def read(self, position: int) -> Pixels:
        """The picture of one test image, decoded: uint8 [C, H, W]. Raises InputError for another shape."""
        where = f"{self.path}: image {self._own[position]}"
        try:
            picture = self._images.decoded(self._own[position])
        except BadImage as problem:
            raise InputError(f"{where}: {problem}") from problem
        return _pixels_of(picture, where, self.shape)


class _Rows:
    """The rows of an array."""

    def __init__(self, path: Path, ids: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.path, self.shape, self.files = path, shape, [path]
        images, own = _arrays(path)
        self._images = _as_pixels(path, images, shape)
        self._rows, self.notes = _matched(path, len(images), own, ids)

    def read(self, position: int) -> Pixels:
        """The row of the array that belongs to one test image, uint8 [C, H, W]."""
        return np.ascontiguousarray(self._images[self._rows[position]])


def _pixels_of(picture: Picture, where: str, shape: tuple[int, int, int]) -> Pixels:
    """The pixels of a picture as they are, uint8 [C, H, W]. Raises InputError where it is another than was made."""
    channels, height, width = shape
    if picture.image.size != (width, height):
        size = f"{picture.image.size[0]} x {picture.image.size[1]}"
        raise InputError(f"{where}: it is {size} pixels, and the test images are {width} x {height}")
    if picture.facts - {"orientation"}:
        raise InputError(f"{where}: it has {', '.join(sorted(picture.facts))} beside its pixels; save it without")
    pixels = np.asarray(picture.in_channels(channels))
    if channels == 1 and not picture.is_grey and (pixels[..., None] != np.asarray(picture.image)).any():
        raise InputError(f"{where}: it is coloured, and the test images are grey; save it with one channel")
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _matched(path: Path, count: int, own: Sequence[str] | None, ids: Sequence[str]) -> tuple[list[int], list[str]]:
    """The row of each test image among `count` images, which may have ids of their `own`; and what is to be said of it.

    Raises InputError where a test image has none, or several.
    """
    if own is None:
        if count != len(ids):
            raise InputError(
                f"{path}: it holds {count:,} images without ids, and there are {len(ids):,} test images; give one for "
                "each, in the order of their ids, or their ids: `ids` beside `images` in an npz file, or the column "
                "`image_id` in Parquet"
            )
        return list(range(count)), [
            "the images have no ids, so that they are taken to be in the order of the test images' ids"
        ]
    rows = {image_id: row for row, image_id in enumerate(own)}
    if len(own) != count or len(rows) != len(own):
        what = "some of them twice" if len(own) == count else f"{count:,} images"
        raise InputError(f"{path}: it holds {len(own):,} ids and {what}; each image needs an id of its own")
    missing = [image_id for image_id in ids if image_id not in rows]
    _refuse_missing(path, missing, len(ids), f"it holds {len(own):,}, such as {min(own, default='')}", own)
    others = sorted(rows.keys() - set(ids))
    return [rows[image_id] for image_id in ids], [_left_out(others)] if others else []


def _pictures_below(folder: Path) -> Iterable[Path]:
    """The picture files below a folder, without those that are hidden."""
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in IMAGE_SUFFIXES and not is_hidden and file.is_file():
            yield file


def _by_names(found: Mapping[str, Path], ids: Sequence[str]) -> dict[str, Path]:
    """The file of each id: of that very path, or of that path with a suffix, with another suffix, or in another folder.

    A name that several files or several ids have leads to none of them.
    """
    own: dict[str, Path] = {}
    ways = ((str, str), (_without_suffix, str), (_without_suffix, _without_suffix), (_bare_name, _bare_name))
    for of_file, of_id in ways:
        files, wanted = Counter(map(of_file, found)), Counter(map(of_id, ids))
        alone = {name: file for path, file in found.items() if files[name := of_file(path)] == 1}
        own |= {i: alone[of_id(i)] for i in ids if i not in own and wanted[of_id(i)] == 1 and of_id(i) in alone}
    return own


def _of_folder(found: Mapping[str, Path], taken: Collection[Path], missing: Sequence[str]) -> str:
    """What a folder holds in place of images that are missing."""
    left = [path for path, file in found.items() if file not in taken]
    alike = [path for path in left if missing and _bare_name(path) == _bare_name(missing[0])]
    if len(alike) > 1:
        return (
            f"{printable(alike[0])} and {printable(alike[1])} have the same name, which then stands for none: remove "
            f"one, or list each file with its id in {_LABELS}, as `{_FILE}` and `{_ID}`"
        )
    return f"it holds {len(found):,}, such as {printable(min(found))}"


def _without_suffix(path: str) -> str:
    stem, dot, suffix = path.rpartition(".")
    return stem if dot + suffix.lower() in IMAGE_SUFFIXES else path


def _bare_name(path: str) -> str:
    return PurePosixPath(_without_suffix(path)).name


def _listed(folder: Path, found: Mapping[str, Path], ids: Sequence[str]) -> dict[str, Path]:
    """The file of each id in the folder's `labels.csv`; empty where it has no ids.

    Raises InputError for a file that is not there, and where one of the test images' `ids` is not listed.
    """
    place, listed = folder / _LABELS, dict[str, str]()
    table = CsvTable(place, read_text(place))
    if not {_FILE, _ID} <= set(table.columns):
        return {}
    table.check_once(_FILE, _ID)
    for number, cells in table.lines():
        name, image_id = cells[_FILE], cells[_ID]
        if not name or not image_id:
            raise InputError(f"{place}, line {number}: names no {'id' if name else 'file'}")
        name = posixpath.normpath(name)
        if listed.setdefault(image_id, name) != name:
            raise InputError(f"{place}, line {number}: {image_id} has another file, {listed[image_id]}, already")
    lost = [name for name in listed.values() if name not in found]
    if lost:
        raise InputError(f"{place}: {len(lost):,} of the files that it lists are not in the folder, such as {lost[0]}")
    missing = [image_id for image_id in ids if image_id not in listed] if listed else []
    _refuse_missing(
        place, missing, len(ids), f"it lists {len(listed):,} ids, such as {min(listed, default='')}", listed
    )
    return {image_id: found[name] for image_id, name in listed.items()}


def _arrays(path: Path) -> tuple[npt.NDArray[Any], list[str] | None]:
    """The images in a file, which stay on the disk where they can, and their ids, if it has any. Raises InputError."""
    try:
        check_regular(path)
        if path.suffix.lower() == ".npy":
            return np.lib.format.open_memmap(path, mode="r"), None
        if not zipfile.is_zipfile(path):  # np.load would advise to unpickle it
            raise ValueError("it is no zip archive")
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive.files:
                raise ValueError(f"it has the arrays {', '.join(archive.files)}, and not `images`")
            images = mapped_array(path, "images.npy")
            own = array_of(archive, "ids") if "ids" in archive.files else None
            images = array_of(archive, "images") if images is None else images
    except Exception as problem:  # a damaged file can raise almost any exception
        raise InputError(f"{path}: {why_unreadable(problem, 'cannot be read')}") from problem
    if own is not None and (own.ndim != 1 or own.dtype.kind != "U"):
        raise InputError(f"{path}: `ids` must be text, one for each image, not {own.dtype} {own.shape}")
    return images, None if own is None else own.tolist()


def _as_pixels(path: Path, images: npt.NDArray[Any], shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """The array as uint8 [N, C, H, W]. Raises InputError where its type or its size is another."""
    channels, height, width = shape
    if images.dtype != np.uint8:
        raise InputError(
            f"{path}: its images are {images.dtype}; save them as uint8, rounded to 8 bits inside the ball, because "
            "images are evaluated as they are stored"
        )
    size = images.shape[1:]
    if size == (height, width) and channels == 1:
        return images[:, None]
    if size == (height, width, channels):
        return images.transpose(0, 3, 1, 2)
    if size != shape:
        wanted = f"[N, {height}, {width}, {channels}] or [N, {channels}, {height}, {width}]"
        raise InputError(f"{path}: its images are of shape {list(images.shape)}, and the test images are {wanted}")
    return images


def _refuse_missing(place: Path, missing: Sequence[str], count: int, what: str, names: Iterable[str]) -> None:
    """Raises InputError where images of `count` test images are missing among those of these names."""
    if missing:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{place}: {len(missing):,} of the {count:,} test images have no image there: {', '.join(missing[:_NAMED])}"
            f"{more}; {what}{_lost_zeros(names, missing)}"
        )


def _lost_zeros(names: Iterable[str], missing: Sequence[str]) -> str:
    """What is to be said where leading zeros alone keep names from matching ids of test images that are missing."""
    there = {bare.lstrip("0"): bare for name in names if (bare := _bare_name(name)).isdigit()}
    for wanted in map(_bare_name, missing):
        if wanted.isdigit() and (name := there.get(wanted.lstrip("0"), wanted)) != wanted:
            return f". Names must have the same leading zeros as the ids: {wanted} in place of {name}"
    return ""


def _left_out(others: Sequence[str]) -> str:
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    return f"left out, because they belong to no test image: {', '.join(map(printable, others[:_NAMED]))}{more}"
