"""How a command ends: its exit code, and the one message that says what happened and what can be done about it."""

import _thread
import argparse
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

WORKING = ("demo", "run", "align", "craft", "evaluate", "reasons", "report", "tune", "schedule")
"""The commands that can go on from where they stopped; the others only look, or write a single file."""

_STDOUT, _STDERR = 1, 2
_STOPPED = {signal.SIGINT: "stopped", signal.SIGTERM: "stopped by SIGTERM"}
_PATIENCE_S = 20.0
"""The longest that a command may take to stop. MLflow's database, which may be made meanwhile, is waited for for 15 s,
and Kubernetes kills a process 30 s after SIGTERM."""


def exit_code_of(
    command: Callable[[argparse.Namespace], int], options: argparse.Namespace, is_process: bool = False
) -> int:
    """Calls a command, and turns what ends it into an exit code and a message on standard error.

    Args:
        is_process: whether this process is there for the command alone. A signal that stops the command then ends the
            process, too, without what libraries do at their end: a Ray cluster that has lost a part can hold that up
            for ever.
    """
    from align_core.errors import InputError
    from pipelines.failure import ONCE_MENDED, RESUMES, Busy, RunFailed

    works = getattr(options, "stage", None) in WORKING

    def said_of(number: int) -> str:
        return f"{_STOPPED[signal.Signals(number)]}{f'. {RESUMES}' if works else ''}"

    def end_late(number: int) -> None:
        time.sleep(_PATIENCE_S)
        if not is_over:
            os.write(_STDERR, f"witness: {said_of(number)}\n".encode())
            os._exit(128 + number)

    is_over = False
    with _interrupted_once(end_late if is_process else None) as number:
        try:
            code = command(options)
            sys.stdout.flush()
            return code
        except InputError as problem:
            return _say(str(problem), 2)
        except (RunFailed, Busy) as problem:
            return _say(str(problem), 1)
        except OSError as problem:
            if _is_unread(problem):
                return 128 + signal.SIGPIPE
            return _say(f"{problem}{f'. {ONCE_MENDED}' if works else ''}", 1)
        except KeyboardInterrupt:
            is_over = True
            code = _say(said_of(number()), 128 + number())
            if is_process:
                _end(code)
            return code
        except Exception as problem:
            return _say(
                f"{type(problem).__name__}: {problem}. This is a fault of Witness or of a library; {_report(problem)}",
                1,
            )
        finally:
            is_over = True


def _is_unread(problem: OSError) -> bool:
    """Whether nobody reads standard output any more, as after `| head`. Then nothing more is written to it."""
    output = select.poll()
    output.register(_STDOUT, 0)
    if not isinstance(problem, BrokenPipeError) or not any(what & select.POLLERR for _, what in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # or Python would complain when it flushes at its end
    return True


def _say(message: str, code: int) -> int:
    print(f"witness: {message}", file=sys.stderr)
    return code


def _report(problem: Exception) -> str:
    """Writes the traceback of a fault that no log of a run holds to a file, and says where it is."""
    from pipelines.storage.credentials import hide_users

    with tempfile.NamedTemporaryFile("w", prefix="witness-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.writelines(map(hide_users, traceback.format_exception(problem)))
    return f"its traceback is in {file.name}"


def _end(code: int) -> NoReturn:
    """Ends this process, once what was printed is out."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(code)


@contextmanager
def _interrupted_once(stopping: Callable[[int], None] | None) -> Iterator[Callable[[], int]]:
    """Lets Ctrl-C, or SIGTERM, by which Slurm, Docker and Kubernetes end a job, interrupt the block, and only once.

    A further signal does not disturb the end of the work, such as that of a Ray cluster. Yields a function that returns
    the number of the signal that came; SIGINT's where an interrupt had another cause.

    Args:
        stopping: called with that number, in a thread of its own, once the signal has come.
    """
    came: int | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came is None:
            came = number
            if stopping is not None:  # `threading` has locks, one of which the interrupted code may hold
                _thread.start_new_thread(stopping, (number,))
            raise KeyboardInterrupt

    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    is_main = threading.current_thread() is threading.main_thread()
    # Whoever set another handler, or runs commands in threads, decides what the signal means.
    taken = [number for number, handler in usual.items() if is_main and signal.getsignal(number) is handler]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield lambda: came or signal.SIGINT
    finally:
        for number in taken:
            signal.signal(number, usual[number])
