"""The classes to which an image set says that a targeted attack is to lead its images: names or indices, as its labels.

They are looked at where an attack asks for them alone, so that a column that nothing uses need not be right.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError
from align_core.images.classes import ClassList, are_integers
from align_core.images.labels import TARGETED, RawLabels


def targeted_classes(
    role: str, raw: RawLabels | None, ids: Sequence[str], labels: npt.NDArray[np.int64], known: ClassList
) -> npt.NDArray[np.int64]:
    """The class to which each image of a set is to be led, int64 [N].

    Args:
        role: the key of the set below `data`.
        raw: the column as the set lists it; None where it has none.
        ids, labels: of the images, N each.
        known: the classes of the experiment.

    Raises InputError where there is no column, or where it gives an image no class, its own label, or a class that the
    experiment has not.
    """
    if raw is None:
        raise InputError(
            f"data.{role}: an attack leads towards: column, and this image set says nothing of classes to lead to; add "
            f"a column `{TARGETED}` to its CSV or Parquet file, or an array `targeted_labels` to its npz file, or set "
            "towards to next, random or least_likely"
        )
    empty = np.flatnonzero(raw.values == ("" if raw.are_names else -1))
    if len(empty):
        raise InputError(f"data.{role}: {len(empty)} images have no `{TARGETED}`, such as {ids[int(empty[0])]}")
    if raw.are_names and known.names is None and not are_integers(raw.values.tolist()):
        name = next(name for name in raw.values.tolist() if not are_integers([name]))
        raise InputError(
            f"data.{role}: the `{TARGETED}` {name!r} is a name, and the labels are class indices; write both alike"
        )
    try:
        classes = known.indices(role, raw)
    except InputError as problem:
        raise InputError(f"{problem} (in `{TARGETED}`)") from problem
    outside = np.flatnonzero((classes < 0) | (classes >= known.count))
    if len(outside):
        first = int(outside[0])
        is_from_1 = (classes[outside] == known.count).all() and 0 not in classes
        mend = f"; if labels and these count from 1, set data.{role}.first_class: 1" if is_from_1 else ""
        raise InputError(
            f"data.{role}: {len(outside)} classes in `{TARGETED}` lie outside 0 to {known.count - 1}: image "
            f"{ids[first]} is to be led to {int(classes[first])}{mend}"
        )
    same = np.flatnonzero(classes == labels)
    if len(same):
        first = int(same[0])
        raise InputError(
            f"data.{role}: the `{TARGETED}` of {len(same)} images is their own label, such as {ids[first]} "
            f"({known.name(int(classes[first]))}); give each another class"
        )
    return np.asarray(classes, dtype=np.int64)
