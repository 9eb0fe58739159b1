"""What can be exported: images with ids, labels and perhaps classes to lead to, read chunk by chunk."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from align_core.images.decoding import Pixels


class Chunk(NamedTuple):
    """Some images: ids, labels int64 [B], the classes that they are led to, and uint8 [B, C, H, W].

    `towards_B` is None where there are no such classes.
    """

    ids: Sequence[str]
    labels_B: npt.NDArray[np.int64]
    towards_B: npt.NDArray[np.int64] | None
    pixels_BCHW: Pixels

    def differing(self, other: "Chunk") -> list[str]:
        """The ids of the images that the other chunk does not have in the same place, bit for bit and with all said."""
        if self.pixels_BCHW.shape != other.pixels_BCHW.shape or self.pixels_BCHW.dtype != other.pixels_BCHW.dtype:
            return list(self.ids)
        differs_B = np.array(self.ids, dtype=object) != np.array(other.ids, dtype=object)
        differs_B |= self.labels_B != other.labels_B
        differs_B |= (self.pixels_BCHW != other.pixels_BCHW).any(axis=(1, 2, 3))
        if (self.towards_B is None) != (other.towards_B is None):
            return list(self.ids)
        if self.towards_B is not None:
            differs_B |= self.towards_B != other.towards_B
        return [image_id for image_id, differs in zip(self.ids, differs_B.tolist(), strict=True) if differs]


@dataclass(frozen=True)
class Exportable(ABC):
    """N images that can be exported. Memory holds one chunk of them.

    Attributes:
        ids, labels_N: of all images, in order.
        chunks: positions of the images of each chunk.
        shape: (C, H, W) of every image.
        class_names: the names of the classes in order; None where they have none.
        is_targeted: whether each image has a class that it is to be led to.
    """

    ids: Sequence[str]
    labels_N: npt.NDArray[np.int64]
    chunks: Sequence[range]
    shape: tuple[int, int, int]
    class_names: Sequence[str] | None
    is_targeted: bool

    def __len__(self) -> int:
        return len(self.ids)

    @property
    @abstractmethod
    def title(self) -> str:
        """What they are, in a few words."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where they lie in a folder of exported images, without the suffix of a form."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What a manifest says of them: of what they are, and what determines them."""

    @abstractmethod
    def read(self) -> Iterator[Chunk]:
        """The images chunk by chunk."""

    @abstractmethod
    def towards(self) -> npt.NDArray[np.int64] | None:
        """The classes that they are led to, int64 [N]; None where there are none."""
