"""The labels of an image set as it lists them: class names, or class indices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError

Labels = npt.NDArray[Any]
"""A label per image: class indices, int64 [N], or class names, text [N]."""
TARGETED = "targeted_label"
"""The column, of a CSV or Parquet file, with the class that a targeted attack is to lead each image to."""


@dataclass(frozen=True)
class RawLabels:
    """The labels of one image set before the classes of the experiment are known.

    Attributes:
        values: a label per image.
        names: the classes that the set names, also those without an image; none where its labels are indices.
        is_ordered: whether `values` are positions in `names`, as Hugging Face's ClassLabel has them.
    """

    values: Labels
    names: tuple[str, ...] = ()
    is_ordered: bool = False

    @property
    def are_names(self) -> bool:
        """Whether `values` are class names rather than numbers."""
        return self.values.dtype.kind == "U"

    def with_values(self, values: Labels) -> "RawLabels":
        """Other labels of the same set."""
        return RawLabels(values, self.names, self.is_ordered)


@dataclass(frozen=True)
class LeftOut:
    """What a listing leaves out, and why.

    Attributes:
        suffixes: number of files that are no images by their suffix, by suffix.
        outside: number of images that lie outside any class folder.
        refused: image id -> why an image that is listed cannot be read, whatever its content is.
    """

    suffixes: Mapping[str, int] = field(default_factory=dict)
    outside: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)


def as_indices(values: Sequence[int] | Labels, ids: Sequence[str], origin: Path, first: int = 0) -> Labels:
    """Class numbers as class indices, int64, where the first class has the number `first`.

    Raises InputError, naming file and image, for one that int64 cannot hold, or that is below 1 where `first` is 1.
    """
    numbers = _as_int64(values, ids, origin)
    below = np.flatnonzero(numbers < first)
    if first and len(below):
        raise InputError(
            f"{origin}: image {ids[int(below[0])]} has the label {numbers[below[0]]}, where the first class has the "
            f"number {first}; set `first_class: 0` if classes are numbered from 0"
        )
    return numbers - first


def as_targeted(values: Sequence[int] | Labels, ids: Sequence[str], origin: Path, first: int = 0) -> Labels:
    """Numbers of classes to lead to as class indices, int64; -1 where there is none."""
    numbers = _as_int64(values, ids, origin)
    return np.where(numbers < first, -1, numbers - first)


def written_from_0(texts: Sequence[str], first: int = 0) -> Labels:
    """Classes to lead to as text [N]: names as they are, and numbers counted from 0, not from `first`."""
    if not first:
        return np.array(texts, dtype=np.str_)
    are_numbers = [text.isascii() and text.isdigit() and len(text) <= 18 for text in texts]
    pairs = zip(texts, are_numbers, strict=True)
    return np.array([str(int(text) - first) if is_number else text for text, is_number in pairs], dtype=np.str_)


def _as_int64(values: Sequence[int] | Labels, ids: Sequence[str], origin: Path) -> npt.NDArray[np.int64]:
    most = 2**63 - 1
    for image_id, value in zip(ids, values, strict=True) if _may_overflow(values) else ():
        if not -most <= int(value) <= most:
            raise InputError(
                f"{origin}: image {image_id} has the label {int(value)}; labels are class indices, numbered from 0"
            )
    return np.asarray(values, dtype=np.int64)


def _may_overflow(values: Sequence[int] | Labels) -> bool:
    return not isinstance(values, np.ndarray) or values.dtype == np.uint64
