"""The settings of an image set, and which of its images they select."""

from dataclasses import dataclass
from typing import Literal

from align_core.errors import InputError
from align_core.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ImageSetConfig(Settings):
    """Where an image set lies, and which of its images are used.

    Raises ValueError for settings that contradict each other.

    Args:
        kind: `npz` (arrays `images`, uint8 NHWC or NHW, and `labels`), `folder` (a sub-folder per class, or image files
            listed in the CSV file `labels`), `parquet` (columns `image` and `label`, in one file or a folder of files)
            or `digits` (the handwritten digits of scikit-learn).
        path: the file or folder; not given for `digits`.
        labels: for `folder`, a CSV file with the columns `path` (relative to the folder) and `label`.
        take: half-open range of positions, with the images in the order of their ids. The ids of a folder begin with
            the name of the class, so that a range of a folder covers one class after another, not a sample of all.
        limit: number of images to use at most, from the start of the range.
    """

    kind: Literal["npz", "folder", "parquet", "digits"]
    path: str | None = None
    labels: str | None = None
    take: tuple[int, int] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "digits" and self.path is not None:
            raise ValueError("the digits come with scikit-learn: `path` does not apply to them")
        if self.kind != "digits" and self.path is None:
            raise ValueError(f"an image set of kind {self.kind} needs a `path`")
        if self.labels is not None and self.kind != "folder":
            raise ValueError("`labels` applies to kind `folder` only")
        if self.take is not None and not 0 <= self.take[0] < self.take[1]:
            raise ValueError(f"`take` is a half-open range [first, end] with 0 <= first < end, not {list(self.take)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"`limit` must be at least 1, not {self.limit}")


def selected(config: ImageSetConfig, count: int) -> range:
    """The positions of the images that `take` and `limit` select out of `count`.

    Raises InputError where `take` exceeds the set, or no image is selected.
    """
    first, end = config.take or (0, count)
    if config.take is not None and end > count:
        raise InputError(f"{config.path or config.kind}: `take` goes to {end}, but there are {count} images")
    positions = range(first, end)
    positions = positions[: config.limit] if config.limit is not None else positions
    if not positions:
        raise InputError(f"{config.path or config.kind}: the image set is empty")
    return positions
