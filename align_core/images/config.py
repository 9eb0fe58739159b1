"""The settings of an image set."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from align_core.settings import Settings

_OF_LABELS = ("image_column", "label_column", "id_column", "first_class", "label_names")
_LATER = {**dict.fromkeys(_OF_LABELS), "inspect": "pixels"}
"""Settings that there were not from the beginning, with their defaults."""


@dataclass(frozen=True, kw_only=True)
class ImageSetConfig(Settings):
    """Where an image set lies, and which of its images are used.

    Raises ValueError for settings that contradict each other.

    Args:
        kind: `npz` (arrays `images`, uint8 NHWC or NHW, and `labels`; perhaps `ids`), `folder` (a sub-folder per class,
            or image files listed in the file `labels`), `parquet` (columns `image` and `label`, in one file or a folder
            of files) or `digits` (the handwritten digits of scikit-learn).
        path: the file or folder; not given for `digits`.
        labels: for `folder`, a label file of one of the forms in `label_file`: say, a CSV file with the columns `path`
            (relative to the folder) and `label` (a class index or a class name).
        image_column: of `labels` or of `parquet`, in place of those that are known: the column with the images.
        label_column: likewise the column with their labels.
        id_column: likewise, of `parquet` alone, the column with their ids.
        first_class: the number, 0 or 1, that integers among the labels give the first class; by default 1 in forms of
            label files that are known to count from 1, and otherwise 0.
        label_names: a CSV file with the class name of each number in `labels`, where their order is not that of the
            class indices.
        take: half-open range of positions, with the images in the order of their ids. The ids of a folder begin with
            the name of the class, so that a range of a folder covers one class after another, not a sample of all.
        limit: number of images to use at most, from the start of the range.
        sample: number of images to draw from the range, of each class in proportion to its images; it takes the place
            of `limit`. A larger sample holds the images of a smaller one, as far as the classes' shares allow.
        sample_seed: of that draw. The seed of the experiment does not change it: repetitions under other seeds are to
            be measured on the same images.
        inspect: what of each image is hashed when the set is inspected, and compared when it is read: its decoded
            `pixels`, or the stored `bytes` without decoding them. By bytes, of every picture the header alone is read.
    """

    kind: Literal["npz", "folder", "parquet", "digits"]
    path: str | None = None
    labels: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    first_class: int | None = None
    label_names: str | None = None
    take: tuple[int, int] | None = None
    limit: int | None = None
    sample: int | None = None
    sample_seed: int = 0
    inspect: Literal["pixels", "bytes"] = "pixels"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "digits" and self.path is not None:
            raise ValueError("the digits come with scikit-learn: `path` does not apply to them")
        if self.kind != "digits" and self.path is None:
            raise ValueError(f"an image set of kind {self.kind} needs a `path`")
        if self.labels is not None and self.kind != "folder":
            raise ValueError("`labels` applies to kind `folder` only")
        self._check_columns()
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

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings by name, without those for columns, numbers and inspection that are as they are by default.

        Hashes of it are those from before there were such settings.
        """
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value != _LATER[name]}

    @property
    def is_encoded(self) -> bool:
        """Whether its images are pictures in files, as a rule, whose decoding takes long."""
        return self.kind in ("folder", "parquet")

    @property
    def is_by_bytes(self) -> bool:
        """Whether images are known by a hash of what is stored of them, and not of their pixels."""
        return self.inspect == "bytes"

    def _check_columns(self) -> None:
        """Raises ValueError for settings of columns, numbers and names that do not apply to the kind."""
        given = [name for name in _OF_LABELS if getattr(self, name) is not None]
        has_columns = self.kind == "parquet" or self.labels is not None
        for name in given:
            if getattr(self, name) == "":
                raise ValueError(f"`{name}` is empty")
            if name == "id_column" and self.kind != "parquet":
                raise ValueError("`id_column` applies to kind `parquet` only")
            if name == "label_names" and self.labels is None:
                raise ValueError("`label_names` applies to kind `folder` with `labels` only")
            if name.endswith("_column") and not has_columns:
                raise ValueError(f"`{name}` applies to kind `parquet`, and to kind `folder` with `labels`")
        if "image_column" in given and self.image_column == self.label_column:
            raise ValueError("`image_column` and `label_column` name the same column")
        if "id_column" in given and self.id_column in (self.image_column or "image", self.label_column or "label"):
            raise ValueError("`id_column` names the column of the images or of their labels")
        if "first_class" in given:
            if self.kind == "digits" or (self.kind == "folder" and self.labels is None):
                raise ValueError("`first_class` applies to labels that are integers in a file")
            if self.first_class not in (0, 1):
                raise ValueError(f"`first_class` must be 0 or 1, not {self.first_class}")
            if self.label_names is not None:
                raise ValueError("`label_names` says which class each number is: leave `first_class` out")
