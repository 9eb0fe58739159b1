"""Whoever watches bytes on their way to a node: what was announced, and what arrived."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.storage.cache import Advance


class Seen:
    """What was told of bytes that were to arrive, and that arrived."""

    def __init__(self) -> None:
        self.announced: list[int] = []
        self.arrived: list[int] = []

    @contextmanager
    def __call__(self, size: int) -> Iterator[Advance]:
        self.announced.append(size)
        yield self.arrived.append
