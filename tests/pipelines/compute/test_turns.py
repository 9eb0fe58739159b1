"""One thread at a time has its turn at the device; for how long that waited for it is told."""

import time
from threading import Event, Thread

from pipelines.compute.turns import _Turns


def test_the_next_thread_has_its_turn_while_the_last_one_writes() -> None:
    turns, has_ended, may_return = _Turns(), Event(), Event()

    def work() -> None:
        with turns.take():
            turns.end()
            has_ended.set()
            assert may_return.wait(60)

    thread = Thread(target=work)
    thread.start()
    assert has_ended.wait(60)
    with turns.take():
        may_return.set()
    thread.join()


def test_how_long_the_device_waited_and_was_used() -> None:
    turns = _Turns()
    with turns.take():
        time.sleep(0.02)
        turns.end()
        time.sleep(0.02)  # as if it wrote
    first = turns.last()
    with turns.take():
        pass
    assert first.device_waited == 0 and first.device_used >= 0.02
    assert turns.last().device_waited >= 0.02
