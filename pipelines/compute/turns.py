"""Turns at the device of a process: while one thread writes what it has made, the next one's chunk is worked on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock, local


class _Turns:
    """One thread at a time uses the device. What it computes depends on no other, so that turns change no result."""

    def __init__(self) -> None:
        self._device, self._own = Lock(), local()

    @contextmanager
    def take(self, *watching: AbstractContextManager[None]) -> Iterator[None]:
        """Waits for a turn, which lasts until the block ends or calls `end`; so long the other blocks last, too."""
        with ExitStack() as turn:
            turn.enter_context(self._device)
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


TURNS = _Turns()
"""Those of this process. Who holds results that lie in the CPU's memory ends its turn, and then writes them."""
