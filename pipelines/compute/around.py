"""An image set around another one."""

from pathlib import Path

from align_core.images import ImageSet
from align_core.images.decoding import Picture
from align_core.images.labels import Labels


class Around(ImageSet):
    """An image set that hands out what another one does. Kinds of it read images in a way of their own.

    Args:
        image_set: the other one.
    """

    def __init__(self, image_set: ImageSet) -> None:
        super().__init__(image_set.fit, image_set.channels)
        self.inner = image_set

    def listing(self) -> tuple[list[str], Labels]:
        """As the other set lists itself now."""
        return self.inner.listing()

    def files(self) -> list[Path]:
        """The files of the other set."""
        return self.inner.files()

    def encoded(self, image_id: str) -> bytes:
        """What is stored of one image now. Raises BadImage where there is nothing."""
        return self.inner.encoded(image_id)

    def decoded(self, image_id: str) -> Picture:
        """One image at its own size. Raises BadImage where it cannot be decoded."""
        return self.inner.decoded(image_id)
