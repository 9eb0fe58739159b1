"""Shows the progress of long work on standard error, with its rate and an estimate of the remaining time.

On a terminal this is a line that is updated in place; elsewhere, and with `--quiet`, plain lines appear every 10 s. All
of it is also written to a log file in the experiment's folder.
"""

import math
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from align_core.errors import InputError, reason_of
from pipelines.failure import ONCE_MENDED, Busy, RunFailed
from pipelines.storage.cache import Advance, Watch
from pipelines.storage.credentials import hide_users
from pipelines.storage.store import Store

_EVERY = 10.0  # seconds between two plain lines of a stage, and between two writes of the log file
_MUCH = 0.1  # of the time: what GPUs may wait before it is said
_EXPLAINED = (InputError, RunFailed, Busy, OSError)  # their messages say what is wrong


@dataclass(frozen=True)
class Spent:
    """What a finished stage of work did, and how long it took.

    Attributes:
        label: its name. done: how many units it did, each a `unit`. seconds: how long it took.
        rate: units per second without the time in which workers were starting; None if that cannot be told.
        waited: the share of the time, once they had begun, in which GPUs had nothing to do; None where there are none.
    """

    label: str
    done: int
    unit: str
    seconds: float
    rate: float | None = None
    waited: float | None = None

    def __str__(self) -> str:
        rate = "" if self.rate is None else f", {_speed(self.rate, self.unit)}"
        waited = "" if self.waited is None else f", GPUs waited {100 * self.waited:.0f} %"
        return f"{self.label} {self.seconds:.1f} s ({_amount(self.done, self.unit)}{rate}{waited})"


def _amount(count: int, unit: str) -> str:
    """A number of units, of which one is in the singular."""
    return f"{count:,} {unit.removesuffix('s') if count == 1 else unit}"


def _speed(rate: float, unit: str) -> str:
    """Units per second, or per minute where they take long. A unit of measure is named, and one that is counted not."""
    measured = f" {unit}" if unit.isupper() else ""  # such as MB
    return f"{rate:,.1f}{measured}/s" if rate >= 0.5 else f"{60 * rate:,.1f}{measured}/min"


class Bar:
    """A stage of work that is under way. Its caller reports how many units are done with `advance` or `set`.

    Where workers have to start first, the rate counts from the moment at which the first units are done. Until each
    worker has had time for more, it is not told.
    """

    def __init__(self, progress: "Progress", label: str, total: int | None, unit: str, workers: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.note = 0, ""
        self._left_out = 0
        self._waited = self._used = 0.0
        self._progress, self._workers, self._last_line = progress, workers, time.monotonic()
        self._began, self._done_before, self._reports = time.monotonic(), 0, 0

    def advance(self, count: int, note: str = "") -> None:
        """Reports that `count` more units are done; `note` is shown at the end of the line from now on."""
        self.set(self.done + count, note)

    def set(self, done: int, note: str = "") -> None:
        """Reports that `done` units are done in total; `note` is shown at the end of the line from now on."""
        if self._workers and self.done == 0 < done:
            self._began, self._done_before, self._reports = time.monotonic(), done, 0
        self._reports += done > self.done
        self.done, self.note = done, note or self.note
        if not self._progress.is_live and time.monotonic() - self._last_line >= _EVERY:
            self._last_line = time.monotonic()
            self._progress.say(self.line())

    def leave_out(self, count: int) -> None:
        """Reports that `count` units will not be done: they are no longer waited for, and the total stays."""
        self._left_out += count

    def took(self, waited: float, used: float) -> None:
        """Reports a turn at a GPU: for how many seconds that had waited for it, and how long the turn lasted."""
        self._waited, self._used = self._waited + waited, self._used + used

    @property
    def waited(self) -> float | None:
        """The share of the time in which GPUs waited; None where no turn was reported."""
        return self._waited / (self._waited + self._used) if self._used else None

    def line(self) -> str:
        """Returns the line that is shown: units done and in total, their rate, and the time that remains."""
        of_all = None if self.total is None else f"{self.done:,} of {self.total:,} {self.unit}"
        left = (self.total or 0) - self.done - self._left_out
        parts = [f"{self.label}: {of_all or _amount(self.done, self.unit)}"]
        rate = self.rate()
        if self._workers and not self.done:
            parts.append(f"starting {self._workers} worker{'s' * (self._workers > 1)}")
        elif rate is not None:
            parts.append(_speed(rate, self.unit))
            if left > 0:
                parts.append(f"{left / rate:.0f} s left")
        return ", ".join(parts) + (f"  {self.note}" if self.note else "")

    def end(self, seconds: float) -> str:
        """Returns the last line: the units that were done, and in total where that is more, and how long it took."""
        is_part = self.total is not None and self.done < self.total
        amount = f"{self.done:,} of {self.total:,} {self.unit}" if is_part else _amount(self.done, self.unit)
        return f"{self.label}: {amount} in {seconds:.1f} s"

    def rate(self) -> float | None:
        """Units per second since workers have started; None while that cannot be told."""
        seconds, done = time.monotonic() - self._began, self.done - self._done_before
        # The first report of all workers comes at nearly the same time, and would give far too high a rate.
        return done / seconds if done and seconds and self._reports > self._workers else None


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

    def say(self, line: str, at_once: bool = False) -> None:
        """Prints one line for the user, and adds it to the log: `at_once` where the process may end soon."""
        print(f"witness: {line}", file=sys.stderr, flush=True)
        self.note(line, at_once)

    def note(self, line: str, at_once: bool = False) -> None:
        """Adds one line to the log without printing it. Lines are kept until `logged` gives the log a file."""
        self._append(line)
        if self._store is not None and (at_once or time.monotonic() - self._logged >= _EVERY):
            self._write_log()

    def _append(self, line: str) -> None:
        self._lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {line}\n")

    @contextmanager
    def logged(self, store: Store) -> Iterator[None]:
        """Writes the log to `logs/TIME.log` in the store while the block runs.

        The file contains the lines from before the block too, and ends with the time of every stage, or with the
        exception that ended the block and its traceback. Where that is a fault of the code, RunFailed is raised in its
        place, and says where the traceback is.
        """
        self._store, self._log = store, f"logs/{datetime.now(UTC):%Y-%m-%dT%H%M%S}Z.log"
        try:
            yield
        except BaseException as problem:
            if isinstance(problem, Exception):
                self._lines += map(hide_users, traceback.format_exception(problem))
            self._append(hide_users(f"ended with {type(problem).__name__}: {problem}".rstrip(": ")))
            is_written = False
            with suppress(OSError):  # the user has to hear what ended the block, of which a full disk may be the reason
                self._write_log()
                is_written = True
            if not isinstance(problem, Exception) or isinstance(problem, _EXPLAINED) or not is_written:
                raise
            what = f"{type(problem).__name__}: {hide_users(reason_of(problem))}"
            raise RunFailed(
                f"{what}. This is a fault of Witness or of a library; its traceback is in "
                f"{store.location}/{self._log}. {ONCE_MENDED}"
            ) from problem
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
    def stage(self, label: str, total: int | None, unit: str, workers: int = 0) -> Iterator[Bar]:
        """Shows a stage of work while the block runs, and says how long it took at the end.

        Args:
            label: the name of the stage.
            total: the number of units; None if it is unknown.
            unit: what the units are, in the plural.
            workers: how many processes have to start before the first unit is done; 0 if none has to.
        """
        bar = Bar(self, label, total, unit, workers)
        start = time.monotonic()
        if self.is_live:
            with _live(bar):
                yield bar
        else:
            if workers:  # a plain line of progress comes with the first units, minutes later for large networks
                self.say(bar.line())
            yield bar
        self.spent.append(Spent(label, bar.done, unit, time.monotonic() - start, bar.rate(), bar.waited))
        self.say(bar.end(self.spent[-1].seconds))
        if bar.waited is not None and bar.waited > _MUCH:
            self.say(
                f"{label}: GPUs waited {100 * bar.waited:.0f} % of the time for images to be read or written; more CPU "
                "cores, or a faster disk or store, would keep them busy"
            )

    def fetching(self, what: str) -> Watch:
        """Shows that an input is fetched from an object store: bytes arrive in several threads, and are shown as MB."""

        @contextmanager
        def watch(size: int) -> Iterator[Advance]:
            with self.stage(f"fetch {what}", math.ceil(size / 1e6), "MB") as bar:
                arrived, one_at_a_time = 0, Lock()

                def advance(count: int) -> None:
                    nonlocal arrived
                    with one_at_a_time:
                        arrived += count
                        bar.set(math.ceil(arrived / 1e6))

                yield advance

        return watch


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
