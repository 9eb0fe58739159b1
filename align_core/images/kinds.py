"""Opens an image set of any kind."""

from pathlib import Path

from align_core.errors import InputError
from align_core.images.config import ImageSetConfig
from align_core.images.digits import Digits
from align_core.images.files import check_regular
from align_core.images.fit import Fit
from align_core.images.folder import Folder
from align_core.images.image_set import ImageSet
from align_core.images.npz import Npz


def open_image_set(config: ImageSetConfig, image_size: int | Fit, channels: int | None = None) -> ImageSet:
    """Opens the image set that `config` describes.

    Its images will be read at `image_size` pixels a side; a `Fit` also says how they are resized and cropped. They get
    this number of channels (1 or 3), or by default those that each has itself. What is selected of the set is not
    applied here; see `selected`. Raises InputError where the path does not exist or is not of the right kind.
    """
    fit = image_size if isinstance(image_size, Fit) else Fit(image_size)
    if config.kind == "digits":
        return Digits(fit, channels)
    path = Path(str(config.path))
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if config.kind == "folder":
        return Folder(path, config, fit, channels)
    if not path.is_dir():
        try:
            check_regular(path)
        except OSError as problem:
            raise InputError(f"{path}: {problem}") from problem
    if config.kind == "npz":
        return Npz(path, fit, channels, config.first_class or 0)
    from align_core.images.parquet import Parquet  # with pyarrow, which nothing else here needs

    return Parquet(path, config, fit, channels)
