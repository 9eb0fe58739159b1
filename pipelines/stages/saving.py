"""Figures of the work, saved when it ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol


class Figures(Protocol):
    """What was measured while the work went on."""

    def save(self) -> None:
        """Writes it to the store."""


@contextmanager
def saving(*several: Figures) -> Iterator[None]:
    """Saves these figures when the block ends.

    After an exception they are saved as far as that is possible: where the disk is full, the exception that says so of
    the work itself is the one that a user needs.
    """
    try:
        yield
    except BaseException:
        for figures in several:
            with suppress(OSError):
                figures.save()
        raise
    for figures in several:
        figures.save()
