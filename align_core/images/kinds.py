"""Opens an image set of any kind."""

from pathlib import Path

from align_core.errors import InputError
from align_core.images.config import ImageSetConfig
from align_core.images.digits import Digits
from align_core.images.fit import Fit
from align_core.images.folder import Folder
from align_core.images.image_set import ImageSet
from align_core.images.npz import Npz
from align_core.images.parquet import Parquet


def open_image_set(config: ImageSetConfig, image_size: int | Fit) -> ImageSet:
    """Opens the image set that `config` describes.

    Its images will be read at `image_size` pixels a side; a `Fit` also says how they are resized and cropped. `take`
    and `limit` are not applied here; see `selected`. Raises InputError where the path does not exist or is not of the
    right kind.
    """
    fit = image_size if isinstance(image_size, Fit) else Fit(image_size)
    if config.kind == "digits":
        return Digits(fit)
    path = Path(str(config.path))
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if config.kind == "npz":
        return Npz(path, fit)
    if config.kind == "parquet":
        return Parquet(path, fit)
    return Folder(path, Path(config.labels) if config.labels else None, fit)
