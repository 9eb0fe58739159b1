"""Reading before its turn: what waits for a store is under way while something else is worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(read: Callable[[Item], Read], items: Iterable[Item], ahead: int) -> Iterator[Read]:
    """Yields `read(item)` for each item in order, and reads as many of the next ones meanwhile; 0 for none.

    So many and one more are held in memory. Raises what `read` raises, at the item's turn.
    """
    if not ahead:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[Future[Read]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()
