"""Progress of long work, on standard error: bars with rate and remaining time on a terminal, plain lines elsewhere.

What is said is kept in a log file where there is one.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.storage.store import Store

_EVERY = 10.0


@dataclass(frozen=True)
class Spent:
    """What a stage did, and how long it took."""

    label: str
    done: int
    unit: str
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.done / self.seconds:,.1f}/s" if self.done and self.seconds else ""
        return f"{self.label} {self.seconds:.1f} s ({self.done:,} {self.unit}{rate})"


class Bar:
    """One stage of work: `advance` counts what is done."""

    def __init__(self, progress: "Progress", label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.note = 0, ""
        self._progress, self._start, self._last_line = progress, time.monotonic(), time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        """`count` more units are done."""
        self.set(self.done + count, note)

    def set(self, done: int, note: str = "") -> None:
        """`done` units are done in all."""
        self.done, self.note = done, note or self.note
        if not self._progress.is_live and time.monotonic() - self._last_line >= _EVERY:
            self._last_line = time.monotonic()
            self._progress.say(self.line())

    def line(self) -> str:
        """What is done, of how much, how fast, and what remains."""
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
    """Where stages of work report. `quiet` prints plain lines even on a terminal.

    `spent`: the stages that ended.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.is_live = sys.stderr.isatty() and not quiet
        self.spent: list[Spent] = []
        self._start = time.monotonic()
        self._lines: list[str] = []
        self._store: Store | None = None
        self._logged, self._log = 0.0, ""

    def say(self, line: str) -> None:
        """One line for the user."""
        print(f"witness: {line}", file=sys.stderr, flush=True)
        self.note(line)

    def note(self, line: str) -> None:
        """One line for the log alone."""
        self._lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {line}\n")
        if self._store is not None and time.monotonic() - self._logged >= _EVERY:
            self._write_log()

    @contextmanager
    def logged(self, store: Store) -> Iterator[None]:
        """Inside, all that is said goes to a file `logs/TIME.log`, with what was said before, and how it ended."""
        self._store, self._log = store, f"logs/{datetime.now(UTC):%Y-%m-%dT%H%M%S}Z.log"
        try:
            yield
            self.say(self.summary())
        except BaseException as problem:
            self.note(f"ended with {type(problem).__name__}: {problem}")
            raise
        finally:
            self._write_log()
            self._store = None

    def _write_log(self) -> None:
        assert self._store is not None
        self._logged = time.monotonic()
        self._store.write(self._log, "".join(self._lines).encode())

    def summary(self) -> str:
        """The time spent in all, and in every stage."""
        return f"{time.monotonic() - self._start:.1f} s in all: {'; '.join(map(str, self.spent))}"

    @contextmanager
    def stage(self, label: str, total: int | None, unit: str) -> Iterator[Bar]:
        """A stage of `total` units (None: unknown). It ends with a line that says how long it took."""
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
