"""Names the model whose code ends this process at once, by `os._exit` or a crash, when nothing here can say it.

Another process says it: it is told what is done, and sees when this one is gone.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

_WATCHER = """
import sys
doing = ""
for line in sys.stdin:
    doing = line.strip()
if doing:
    print(f"witness: {doing}", file=sys.stderr)
"""
_WAIT_S = 10

Found = TypeVar("Found")


class Named(Protocol):
    """Makes of something that is done with a model one during which a sudden end is known to be that of the model."""

    def __call__(self, name: str, work: Callable[[], Found]) -> Callable[[], Found]:
        """Returns what does and returns the same."""
        ...


@contextmanager
def naming_sudden_ends() -> Iterator[Named]:
    """Within the block, what is done with models is watched. The other process starts with the first of it."""
    watchers: list[subprocess.Popen[str]] = []

    def tell(text: str) -> None:
        with suppress(OSError):  # a watcher that is gone, or cannot be had, is no reason to stop
            if not watchers:
                command = [sys.executable, "-I", "-S", "-c", _WATCHER]
                watchers.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        text=True,
                        start_new_session=True,  # in which Ctrl-C does not end it
                    )
                )
            stream = watchers[0].stdin
            assert stream is not None
            stream.write(f"{text}\n")
            stream.flush()

    def named(name: str, work: Callable[[], Found]) -> Callable[[], Found]:
        def watched() -> Found:
            tell(
                f"models.{name}: the process ended at once while this model was tried: its code called os._exit or "
                "crashed, or something killed the process, as the system does where memory is short"
            )
            try:
                return work()
            finally:
                tell("")

        return watched

    try:
        yield named
    finally:
        for watcher in watchers:
            with suppress(OSError, subprocess.TimeoutExpired):
                watcher.communicate(timeout=_WAIT_S)
