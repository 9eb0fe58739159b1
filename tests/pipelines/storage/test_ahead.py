"""Reading before its turn: in order, bounded, and with an error at the turn of what it is of."""

import time
from threading import Lock

import pytest

from pipelines.storage.ahead import read_ahead


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_everything_comes_in_order_and_no_more_is_held_than_asked_for(ahead: int) -> None:
    begun: list[int] = []
    lock = Lock()

    def read(item: int) -> int:
        with lock:
            begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    taken = 0
    for number, result in enumerate(read_ahead(read, range(20), ahead)):
        assert result == number * number
        taken += 1
        assert len(begun) <= taken + ahead
    assert taken == 20 and sorted(begun) == list(range(20))


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_comes_at_its_turn_and_ends_the_reading(ahead: int) -> None:
    begun: list[int] = []

    def read(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise OSError("no such file")
        return item

    results = read_ahead(read, range(100), ahead)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no such file"):
        next(results)
    assert len(begun) <= 4 + ahead
