"""The settings of an image set."""

from dataclasses import dataclass
from typing import Literal

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
        labels: for `folder`, a CSV file with the columns `path` (relative to the folder) and `label` (a class index or
            a class name).
        take: half-open range of positions, with the images in the order of their ids. The ids of a folder begin with
            the name of the class, so that a range of a folder covers one class after another, not a sample of all.
        limit: number of images to use at most, from the start of the range.
        sample: number of images to draw from the range, of each class in proportion to its images; it takes the place
            of `limit`. A larger sample holds the images of a smaller one, as far as the classes' shares allow.
        sample_seed: of that draw. The seed of the experiment does not change it: repetitions under other seeds are to
            be measured on the same images.
    """

    kind: Literal["npz", "folder", "parquet", "digits"]
    path: str | None = None
    labels: str | None = None
    take: tuple[int, int] | None = None
    limit: int | None = None
    sample: int | None = None
    sample_seed: int = 0

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
        if self.sample is not None and self.sample < 1:
            raise ValueError(f"`sample` must be at least 1, not {self.sample}")
        if self.sample is not None and self.limit is not None:
            raise ValueError("`sample` draws images from all classes, `limit` takes the first ones: give one of them")
        if self.sample is None and self.sample_seed != 0:
            raise ValueError("`sample_seed` applies to `sample` only, which is not given")
