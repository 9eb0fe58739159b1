"""Decoded images in the memory of a worker: a chunk is decoded once for all surrogates, attacks and networks."""

from collections.abc import Callable, Sequence

from align_core.images.decoding import Pixels

KEPT_BESIDE_A_GPU = 2**30
"""Bytes of decoded images that a worker with a GPU keeps."""


class _Decoded:
    """Keeps chunks as they are decoded, the first ones until there is no room, and these to the end of the process.

    A worker goes through all chunks again and again. If the latest were kept, and one chunk were too many, each would
    have gone just before it is asked for.

    Attributes:
        room: bytes that may be kept; none until a worker has a device that would wait for the decoding.
    """

    def __init__(self) -> None:
        self.room = 0
        self._kept: dict[tuple[str, ...], Pixels] = {}

    def read(self, contents: Sequence[str], read: Callable[[], Pixels]) -> Pixels:
        """The images of which these are hashes, for reading alone; `read` decodes them."""
        name = tuple(contents)
        if name in self._kept:
            return self._kept[name]
        pixels = read()
        if pixels.nbytes <= self.room and name not in self._kept:
            self.room -= pixels.nbytes
            pixels.flags.writeable = False
            self._kept[name] = pixels
        return pixels


DECODED = _Decoded()
"""Those of this process."""
