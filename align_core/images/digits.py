"""The handwritten digits of scikit-learn as an image set."""

from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError
from align_core.images.decoding import Picture, Pixels, from_array
from align_core.images.fit import Fit
from align_core.images.image_set import CACHED_BYTES, ImageSet, encoded_array, row_ids


class Digits(ImageSet):
    """scikit-learn's 1,797 handwritten digits, grey, 8 x 8 pixels, enlarged to size. An id is the zero-padded row."""

    def __init__(self, fit: Fit, channels: int | None) -> None:
        super().__init__(fit, channels)
        # Training reads the same digits again in every epoch.
        self._enlarged = lru_cache(CACHED_BYTES // (fit.size**2 * (channels or 1)))(super().read)

    @cached_property
    def arrays(self) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """The images, uint8 [N, 8, 8], and their labels [N]."""
        package = find_spec("sklearn")
        if package is None or package.origin is None:
            raise InputError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
        # Its own function would first import most of scikit-learn and SciPy, which takes every worker a second.
        rows = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
        # Pixels run from 0 to 16; the digit comes last.
        images = rows[:, :-1].reshape(-1, 8, 8)
        return np.round(images * (255 / 16)).astype(np.uint8), rows[:, -1].astype(np.int64)

    def listing(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Row numbers, and the digit on each image."""
        return row_ids(len(self.arrays[0])), self.arrays[1]

    def files(self) -> list[Path]:
        """None: the digits come with scikit-learn."""
        return []

    def decoded(self, image_id: str) -> Picture:
        """One digit, 8 x 8 pixels."""
        return from_array(self.arrays[0][int(image_id)])

    def encoded(self, image_id: str) -> bytes:
        """Shape and pixels of one digit."""
        return encoded_array(self.arrays[0][int(image_id)])

    def read(self, image_id: str) -> Pixels:
        """One digit as uint8 [C, H, W] at the set's size."""
        return self._enlarged(image_id)
