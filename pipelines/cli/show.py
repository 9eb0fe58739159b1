"""Results as people read them on a terminal: tables, and the lines below them. `--json` prints objects instead."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.report.tabled import Report
    from pipelines.run.clean import CleanResult
    from pipelines.run.command import RunResult
    from pipelines.run.forecast import Forecast
    from pipelines.run.status import Status
    from pipelines.sweep.command import SweepResult


class Printable(Protocol):
    """A result that can be printed in two ways."""

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        ...

    def lines(self) -> list[str]:
        """The lines that are printed otherwise."""
        ...


def print_text(found: Printable, as_json: bool) -> None:
    """Prints a result as lines, or as one JSON object."""
    if as_json:
        print(json.dumps(found.as_json()))
        return
    for line in found.lines():
        print(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of words as lines with aligned columns, two spaces apart."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def print_forecast(forecast: "Forecast") -> None:
    """Prints the totals of every stage, a line per surrogate or model of which something is missing, and notes."""
    from pipelines.run.missing_work import missing_work, table_of

    print(*forecast.totals(), *columns(table_of(missing_work(forecast))), *forecast.notes, sep="\n")


def print_status(status: "Status") -> None:
    """Prints a line per stage and surrogate or model, then the sums over everything, and warnings.

    The surrogates of a stage share a line where they are all in the same state.
    """
    rows = [["stage", "of", "state", "chunks"]]
    for group in status.summed_groups():
        chunks = f"{group.done:,} of {group.chunks:,}" if group.chunks else ""
        rows.append([group.stage, group.name, group.state, chunks])
    print(*columns(rows), f"in all: {status.sums()}", *status.warnings, sep="\n")


def print_clean(result: "CleanResult") -> None:
    """Prints a line per model or surrogate, and what accuracy guessing would have."""
    rows = [["network", "role", "clean accuracy, %", "95 % interval", "images"]]
    for row in result.rows:
        rows.append([row.name, row.role, f"{row.accuracy:.1f}", f"{row.low:.1f} to {row.high:.1f}", f"{row.n:,}"])
    print(*columns(rows), sep="\n")
    print(f"{result.classes} classes: guessing is right in {100 / result.classes:.3g} %")
    if result.missing:
        print(f"not there yet: {', '.join(result.missing)}")


def print_result(result: "RunResult", options: argparse.Namespace, surrogate: str = "aligned") -> None:
    """Prints the table of mean transfer rates, a surrogate's verdicts, and where the report and the MLflow page are."""
    from rich import box
    from rich.table import Table

    from pipelines.report.ranking import CAVEAT, ranking
    from pipelines.report.sentences import verdicts
    from pipelines.storage.credentials import without_credentials

    assert result.report is not None
    seeds = max(row["seeds"] for row in result.report.transfer)
    targets = _targets(result.report)
    what = f"means over {seeds} seeds and {targets}" if seeds > 1 else f"mean over {targets}"
    both = "; those of gains over images and seeds" if seeds > 1 else ""
    title = f"{what} of each surrogate, %, with 95 % intervals over images{both}"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    means = result.report.means()
    targeted = ["targeted rate"] if any(row["targeted_rate"] is not None for row in means) else []
    for column in ("surrogate", "attack", "transfer rate", *targeted, "gain over the source", "clean accuracy"):
        table.add_column(column, justify="left" if column in ("surrogate", "attack") else "right")
    for row in means:
        rates = [_rate(row["rate"], row["rate_low"], row["rate_high"])]
        rates += [_rate(row["targeted_rate"], row["targeted_low"], row["targeted_high"])] if targeted else []
        accuracy = "" if row["clean_accuracy"] is None else f"{row['clean_accuracy']:.1f}"
        table.add_row(row["surrogate"], row["attack"], *rates, _gain(row), accuracy)
    _console().print(table)
    if targeted:
        _console().print("gains of targeted attacks are in the targeted rate", highlight=False)
    ranked = ranking(result.report)
    for line in [*ranked, *([CAVEAT] if ranked else [])]:
        _console().print(line, highlight=False, markup=False, soft_wrap=True)
    names = {row["surrogate"] for row in result.report.transfer}
    elsewhere = [f"{name} under" for name in names if result.report.is_made_elsewhere(name)]
    for line in verdicts(result.report):
        if line.startswith((f"{surrogate} under", f"{surrogate}-", *elsewhere)):
            _console().print(line, highlight=False, markup=False, soft_wrap=True)
    for line in result.warnings:
        _console().print(line, highlight=False, markup=False, soft_wrap=True)
    again = ["witness", "ui", str(options.experiment)]
    for key, _, value in (override.partition("=") for override in options.overrides):
        again += ["--set", f"{key}={without_credentials(value)}"]
    again += ["--output", without_credentials(options.output)] if options.output else []
    print(f"report: {result.location}/report/report.html")
    print(f"MLflow: {shlex.join(again)}   ({result.tracking})")


def _targets(report: "Report") -> str:
    """The targets that the means are over, by their number where it is the same for every surrogate."""
    from pipelines.report.means import is_mean

    by_surrogate: dict[str, dict[str, int]] = {}
    for row in report.transfer:
        if not is_mean(row["target"]):
            by_surrogate.setdefault(row["surrogate"], {})[row["target"]] = row["n"]
    counts = {(len(own), sum(map(bool, own.values()))) for own in by_surrogate.values()}
    if len(counts) != 1:
        return "the targets"
    ((count, counted),) = counts
    if counted < count:
        return f"{counted} of {count} targets (no image counts for the others)" if counted else "no target"
    return f"{count} targets" if count > 1 else "the only target"


def print_sweep(result: "SweepResult", options: argparse.Namespace) -> None:
    """Prints the trials of a sweep, and the test of the chosen settings where there is one."""
    from rich import box
    from rich.table import Table

    from pipelines.report.sentences import compared, said_gain

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"trials of {result.surrogate}, on validation images and targets; "
        "* no other trial beats it in both gain and accuracy",
    )
    for column in (*result.keys, "gain", "clean accuracy", "status"):
        table.add_column(column, justify="right")
    for row in result.rows[:20]:
        accuracy = "" if row["clean_accuracy"] is None else f"{row['clean_accuracy']:.1f}"
        star = " *" if row["pareto"] else ""
        settings = (str(value) for key, value in row.items() if key in result.keys)
        table.add_row(*settings, _gain(row) + star, accuracy, row["status"])
    _console().print(table)
    if len(result.rows) > 20:
        print(f"and {len(result.rows) - 20} more in {result.location}/trials.csv")
    if result.test is not None:
        print_result(result.test, options, result.contrast[0]["surrogate"] if result.contrast else result.surrogate)
    for line in result.lines():
        print(line)
    for contrast in result.contrast:
        if contrast["target"] == "(mean)" and contrast["gain"] is not None:
            verdict = compared(contrast, "is ", "shows ")
            print(
                f"{result.surrogate} with the chosen settings {verdict} that with the default ones, on test images and "
                f"targets under {contrast['attack']}: {said_gain(contrast)}"
            )
    if result.best is not None:
        print(f"best settings: {result.location}/best.yaml")
    print(f"trials: {result.location}/trials.csv, sweep.png")


def _rate(value: float | None, low: float | None, high: float | None) -> str:
    """A rate with its interval, in percent; empty where there is none."""
    return "" if value is None else f"{value:.1f} ({low:.1f} to {high:.1f})"


def _gain(row: Any) -> str:
    """A gain with its interval, in points; empty where there is none, as for the source itself."""
    several = row.get("seeds", 1) > 1
    low, high = (row["gain_both_low"], row["gain_both_high"]) if several else (row["gain_low"], row["gain_high"])
    return "" if row["gain"] is None else f"{row['gain']:+.1f} ({low:+.1f} to {high:+.1f})"


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110)
