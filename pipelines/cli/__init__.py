"""The `witness` command: it reads the command line, calls the room that does the work, and prints what comes back.

Begin with `parser`, which lists every command with its flags. `commands` has a function for each command, and `show`
prints their results for people. `catalogue` answers `witness list`; `starter` writes the file of `witness init`, whose
text is in `template`. `ending` turns what ends a command into its exit code and message.

A new flag goes into `parser`, then into the function in `commands`, then to the room that it is meant for.

Everything heavy is imported inside the function that uses it, so that `witness --help` answers at once.
"""

import argparse
from collections.abc import Callable, Sequence

from pipelines.cli.ending import exit_code_of
from pipelines.cli.parser import command_line

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, with the arguments of the process unless others are given.

    Returns the exit code: 0 when the work is done, 1 when the run failed, 2 when the input is wrong, 130 after
    Ctrl-C, and 143 after SIGTERM. For a command line that cannot be parsed, argparse raises SystemExit with code 2.
    """
    options = command_line().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return exit_code_of(command, options, is_process=arguments is None)
