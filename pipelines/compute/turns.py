"""Turns at the device of a process: while one thread works on its chunk, others read the next ones and write the last.

A device that has nothing to do waits for them. How long is measured, turn by turn.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock, local
from typing import NamedTuple

AT_ONCE = 8
"""Chunks in the hands of a worker with a GPU: one is at the device, and others are read, wait for it or are written."""


class Turn(NamedTuple):
    """Seconds of one turn: for how long the device had waited for it (0 for the first), and how long it lasted."""

    device_waited: float
    device_used: float


class _Turns:
    """One thread at a time uses the device. What it computes depends on no other, so that turns change no result."""

    def __init__(self) -> None:
        self._device, self._own = Lock(), local()
        self._freed: float | None = None

    @contextmanager
    def take(self, *watching: AbstractContextManager[None]) -> Iterator[None]:
        """Waits for a turn, which lasts until the block ends or calls `end`; so long the other blocks last, too."""
        with ExitStack() as turn:
            turn.enter_context(self._device)
            turn.enter_context(self._timed())
            for block in watching:
                turn.enter_context(block)
            self._own.turn = turn
            try:
                yield
            finally:
                self._own.turn = None

    def end(self) -> None:
        """Lets the next thread have its turn. Nothing is done outside of `take`."""
        turn: ExitStack | None = getattr(self._own, "turn", None)
        if turn is not None:
            self._own.turn = None
            turn.close()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        waited = began - (self._freed or began)
        try:
            yield
        finally:
            self._freed = time.monotonic()
            self._own.last = Turn(waited, self._freed - began)

    def last(self) -> Turn:
        """The last turn of this thread, which has ended."""
        last: Turn = self._own.last
        return last


TURNS = _Turns()
"""Those of this process. Who holds results that lie in the CPU's memory ends its turn, and then writes them."""
