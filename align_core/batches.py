"""The batches of a training run, each decided by its seed, its step and the images alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from align_core.align_config import AlignConfig
from align_core.augmentation import Drawn, arranged, drawn
from align_core.errors import InputError
from align_core.images import ImageSet


class Batches:
    """The batches of a training run as a sequence: `batches[step]` is the batch of that step.

    A batch depends on the seed, the step and the images alone, and not on earlier batches, so that a resumed run goes
    on with exactly the batches that an unbroken one would meet. Every epoch has an order of its own, and leaves out the
    images that do not fill a batch. A set smaller than a batch makes one batch.

    Args:
        images: the image set; images are read by id when a batch needs them.
        image_ids: ids of the training images.
        labels: their labels, in the same order.
        align: the settings: batch size, epochs and augmentation.
        seed: decides order and augmentation.
        rank, world: number of this data-parallel worker, and of all of them. The worker takes every `world`-th image
            of a batch, beginning with the `rank`-th.

    Raises InputError where there are fewer images than workers, or the arguments do not fit each other.
    """

    def __init__(
        self,
        images: ImageSet,
        image_ids: Sequence[str],
        labels: Sequence[int],
        align: AlignConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if isinstance(image_ids, str) or len(image_ids) != len(labels):
            raise InputError(f"{len(image_ids)} image ids and {len(labels)} labels: give a label for each id, in lists")
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} is none of {world} workers, which are counted from 0")
        self.images, self.image_ids, self.labels = images, image_ids, torch.as_tensor(np.asarray(labels))
        self.align, self.seed, self.rank, self.world = align, seed, rank, world
        if len(image_ids) < world:
            raise InputError(f"{len(image_ids)} training images are too few for {world} workers")
        self.batch_size = min(align.batch_size, len(image_ids) // world * world)
        self.steps_per_epoch = len(image_ids) // self.batch_size
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None  # of the epoch that was last asked for

    def __len__(self) -> int:
        return self.align.steps(len(self.image_ids))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one step: augmented float pixels [B, C, H, W] in [0, 1], and int64 labels [B]."""
        read, labels_B = self.read(step)
        return self.arranged(read), labels_B

    def read(self, step: int) -> tuple[Drawn, Tensor]:
        """The first half of the batch of one step: 8-bit images with what was drawn for each, and int64 labels [B]."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        epoch, chosen = step // self.steps_per_epoch, self._positions(step)
        ids = [self.image_ids[position] for position in chosen]
        return drawn(self.images, ids, self.align.augment, self.seed, epoch), self.labels[torch.from_numpy(chosen)]

    def arranged(self, read: Drawn) -> Tensor:
        """The second half, on whatever device the images of the first one are by now."""
        return arranged(read, self.align.augment)

    def ids_of(self, step: int) -> list[str]:
        """The ids of the images in the batch of one step, in order."""
        return [self.image_ids[position] for position in self._positions(step)]

    def _positions(self, step: int) -> npt.NDArray[np.int64]:
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:  # drawing the order of a million images takes 80 ms
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.image_ids))
        return self._order[1][number * self.batch_size : (number + 1) * self.batch_size][self.rank :: self.world]
