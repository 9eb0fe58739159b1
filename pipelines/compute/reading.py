"""The batches of a fine-tune on their way to the device, read ahead of the steps that need them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from align_core.augmentation import Drawn
from align_core.batches import Batches
from align_core.errors import InputError

TAKEN = 4
"""Steps that a GPU is given before their values are waited for. The images of each stay in its memory."""


def batches_on(
    device: str, batches: Batches, steps: range, threads: int, is_encoded: bool, patience: float = 0.0
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of these steps, on the device: what `batches[step]` returns.

    Images that have to be decoded, and all for a GPU, are read in processes beside the training, two batches ahead of
    it each. They travel to a GPU as 8-bit pixels, without being waited for, and are cropped and flipped there.

    Args:
        threads: how many such processes there are.
        is_encoded: whether the images have to be decoded.
        patience: seconds after which such a process counts as stuck that owes the next batch; 0 for no limit.

    Raises InputError for an image that is unreadable or is not the one that was inspected, and TimeoutError.
    """
    on_gpu = torch.device(device).type == "cuda"
    readers = threads if on_gpu or is_encoded else 0
    reading = cast("Dataset[_Read]", _Reading(batches))  # all that a DataLoader needs: length and items
    longest = patience if readers else 0.0
    loader = DataLoader(
        reading, batch_size=None, sampler=steps, num_workers=readers, pin_memory=on_gpu, timeout=longest
    )
    for read in _in_time(loader, longest):
        if isinstance(read, InputError):
            raise read
        images, labels_B = read
        drawn = Drawn(*(own.to(device, non_blocking=True) for own in images))
        yield batches.arranged(drawn), labels_B.to(device, non_blocking=True)


_Read = tuple[Drawn, Tensor] | InputError


def _in_time(loader: Iterable[_Read], seconds: float) -> Iterator[_Read]:
    """What arrives. Raises TimeoutError, which is tried again as other faults of a disk are, where nothing does."""
    try:
        yield from loader
    except RuntimeError as problem:
        if not str(problem).startswith("DataLoader timed out"):
            raise
        raise TimeoutError(
            f"no batch of data.train was read in {seconds:g} s (compute.patience): does its disk answer?"
        ) from problem


@dataclass(frozen=True)
class _Reading:
    """Batches in which bad input is an item: of an exception in another process, torch makes one with a traceback."""

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> _Read:
        try:
            return self.batches.read(step)
        except InputError as problem:
            return problem
