"""How a command ends: its exit code, and the one message that says what happened and what can be done about it."""

import argparse
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WORKING = ("demo", "run", "align", "craft", "evaluate", "reasons", "report", "tune", "schedule")
"""The commands that can go on from where they stopped; the others only look, or write a single file."""

_STDOUT = 1


def exit_code_of(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Calls a command, and turns what ends it into an exit code and a message on standard error."""
    from align_core.errors import InputError
    from pipelines.failure import ONCE_MENDED, RESUMES, Busy, RunFailed

    works = getattr(options, "stage", None) in WORKING
    with _sigterm_interrupts() as is_terminated:
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
            how = "stopped by SIGTERM" if is_terminated() else "stopped"
            return _say(f"{how}{f'. {RESUMES}' if works else ''}", 143 if is_terminated() else 130)
        except Exception as problem:
            return _say(
                f"{type(problem).__name__}: {problem}. This is a fault of Witness or of a library; {_report(problem)}",
                1,
            )


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


@contextmanager
def _sigterm_interrupts() -> Iterator[Callable[[], bool]]:
    """Lets SIGTERM, by which Slurm, Docker and Kubernetes end a job, interrupt the block as Ctrl-C does.

    Yields a function that says whether it has come. A further SIGTERM does not disturb the end of the work.
    """
    came = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if not came:
            came = True
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False  # whoever set a handler, or runs commands in threads, decides what SIGTERM means
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
