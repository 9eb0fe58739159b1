"""A head of the cluster that does not answer is told once, and one that answers is not."""

import socket
import time
from threading import Event, Thread

import pytest

from pipelines.compute import head


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    monkeypatch.setattr(head, "_EVERY", 0.02)
    return socket.create_server(("127.0.0.1", 0))


def test_it_is_told_once_that_the_head_does_not_answer(server: socket.socket) -> None:
    address = f"127.0.0.1:{server.getsockname()[1]}"
    server.close()
    said: list[str] = []
    head._watch(address, Event(), said.append)
    assert len(said) == 1
    assert said[0].startswith(f"the head of the Ray cluster, {address}, does not answer.")


def test_a_head_that_answers_is_watched_in_silence_until_the_end(server: socket.socket) -> None:
    said: list[str] = []
    is_over = Event()
    address = f"127.0.0.1:{server.getsockname()[1]}"
    watcher = Thread(target=head._watch, args=(address, is_over, said.append))
    watcher.start()
    time.sleep(0.3)
    assert watcher.is_alive()
    is_over.set()
    watcher.join(timeout=10)
    server.close()
    assert not watcher.is_alive() and said == []
