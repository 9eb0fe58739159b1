"""Shows the progress of long work on standard error, with its rate and an estimate of the remaining time.

On a terminal this is a line that is updated in place; elsewhere, and with `--quiet`, plain lines appear every 10 s. All
of it is also written to a log file in the experiment's folder.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.storage.store import Store

_EVERY = 10.0  # seconds between two plain lines of a stage, and between two writes of the log file


@dataclass(frozen=True)
class Spent:
    """What a finished stage of work did, and how long it took.

    Attributes:
        label: its name. done: how many units it did, each a `unit`. seconds: how long it took.
    """

    label: str
    done: int
    unit: str
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.done / self.seconds:,.1f}/s" if self.done and self.seconds else ""
        return f"{self.label} {self.seconds:.1f} s ({self.done:,} {self.unit}{rate})"


class Bar:
    """A stage of work that is under way. Its caller reports how many units are done with `advance` or `set`."""

    def __init__(self, progress: "Progress", label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.note = 0, ""
        self._progress, self._start, self._last_line = progress, time.monotonic(), time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        """Reports that `count` more units are done; `note` is shown at the end of the line from now on."""
        self.set(self.done + count, note)

    def set(self, done: int, note: str = "") -> None:
        """Reports that `done` units are done in total; `note` is shown at the end of the line from now on."""
        self.done, self.note = done, note or self.note
        if not self._progress.is_live and time.monotonic() - self._last_line >= _EVERY:
            self._last_line = time.monotonic()
            self._progress.say(self.line())

    def line(self) -> str:
        """Returns the line that is shown: units done and in total, their rate, and the time that remains."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / seconds
        of = f" of {self.total:,}" if self.total is not None else ""
        left = ""
        if self.total is not None and rate > 0 and self.done < self.total:
            left = f", {(self.total - self.done) / rate:.0f} s left"
        return (
            f"{self.label}: {self.done:,}{of} {self.unit}, {rate:,.1f}/s{left}{'  ' + self.note if self.note else ''}"
        )


class Progress:
    """Shows the stages of one command, keeps its log, and adds up the time that it takes.

    Args:
        quiet: print plain lines on a terminal, too.

    Attributes:
        spent: the stages that have ended, in order.
        is_live: whether the line of a stage is updated in place.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.is_live = sys.stderr.isatty() and not quiet
        self.spent: list[Spent] = []
        self._start = time.monotonic()
        self._lines: list[str] = []
        self._store: Store | None = None
        self._logged, self._log = 0.0, ""

    def say(self, line: str) -> None:
        """Prints one line for the user, and adds it to the log."""
        print(f"witness: {line}", file=sys.stderr, flush=True)
        self.note(line)

    def note(self, line: str) -> None:
        """Adds one line to the log without printing it. Lines are kept until `logged` gives the log a file."""
        self._append(line)
        if self._store is not None and time.monotonic() - self._logged >= _EVERY:
            self._write_log()

    def _append(self, line: str) -> None:
        self._lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {line}\n")

    @contextmanager
    def logged(self, store: Store) -> Iterator[None]:
        """Writes the log to `logs/TIME.log` in the store while the block runs.

        The file contains the lines from before the block too, and ends with the time of every stage, or with the
        exception that ended the block.
        """
        self._store, self._log = store, f"logs/{datetime.now(UTC):%Y-%m-%dT%H%M%S}Z.log"
        try:
            yield
        except BaseException as problem:
            self._append(f"ended with {type(problem).__name__}: {problem}")
            with suppress(OSError):  # the user has to hear what ended the block, of which a full disk may be the reason
                self._write_log()
            raise
        else:
            self.say(self.summary())
            self._write_log()
        finally:
            self._store = None

    def _write_log(self) -> None:
        assert self._store is not None
        self._logged = time.monotonic()
        self._store.write(self._log, "".join(self._lines).encode())

    def summary(self) -> str:
        """Returns a line with the total time and that of every stage."""
        return f"{time.monotonic() - self._start:.1f} s in all: {'; '.join(map(str, self.spent))}"

    @contextmanager
    def stage(self, label: str, total: int | None, unit: str) -> Iterator[Bar]:
        """Shows a stage of work while the block runs, and says how long it took at the end.

        Args:
            label: the name of the stage.
            total: the number of units; None if it is unknown.
            unit: what the units are, in the plural.
        """
        bar = Bar(self, label, total, unit)
        start = time.monotonic()
        if self.is_live:
            with _live(bar):
                yield bar
        else:
            yield bar
        self.spent.append(Spent(label, bar.done, unit, time.monotonic() - start))
        self.say(f"{label}: {bar.done:,} {unit} in {self.spent[-1].seconds:.1f} s")


@contextmanager
def _live(bar: Bar) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    class Line:
        def __rich__(self) -> Text:
            return Text(bar.line())

    with Live(Line(), console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield
