"""The `witness` command: it reads the command line, calls the room that does the work, and prints what comes back.

Begin with `parser`, which lists every command with its flags. `commands` has a function for each command, and `show`
prints their results for people. `catalogue` answers `witness list`; `starter` writes the file of `witness init`, whose
text is in `template`.

A new flag goes into `parser`, then into the function in `commands`, then to the room that it is meant for.

Everything heavy is imported inside the function that uses it, so that `witness --help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from pipelines.cli.parser import command_line

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, with the arguments of the process unless others are given.

    Returns the exit code: 0 when the work is done, 1 when the run failed, 2 when the input is wrong, and 130 after
    Ctrl-C. For a command line that cannot be parsed, argparse raises SystemExit with code 2.
    """
    options = command_line().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return _with_exit_code(command, options)


def _with_exit_code(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    from align_core.errors import InputError
    from pipelines.failure import Busy, RunFailed

    try:
        return command(options)
    except InputError as problem:
        print(f"witness: {problem}", file=sys.stderr)
        return 2
    except (RunFailed, Busy) as problem:
        print(f"witness: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"witness: {problem}{_advice(options)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"witness: stopped{_advice(options)}", file=sys.stderr)
        return 130


def _advice(options: argparse.Namespace) -> str:
    """How to go on after a command that works; one that only looks, or writes a single file, has nothing to resume."""
    stage = getattr(options, "stage", None)
    works = stage in ("demo", "run", "align", "craft", "evaluate", "report", "tune", "schedule")
    return ". What was finished is kept; the same command resumes" if works else ""
