"""The `witness` command: parses, calls, prints. Everything heavy is imported where it is used."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.run.command import Request, Result
    from pipelines.sweep.command import SweepResult

RECIPES = Path(__file__).parent / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 the run failed, 2 the input is wrong."""
    options = _parser().parse_args(arguments)
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
        print(f"witness: {problem}. What was finished is kept; the same command goes on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("witness: stopped. What was finished is kept; the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="witness",
        description="Aligns a source model to a witness, crafts adversarial examples on it, and measures how much "
        "better they transfer to models that the attacker cannot see.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--set", metavar="KEY.PATH=VALUE", action="append", default=[], dest="overrides",
        help="lay a value over the experiment file (repeatable)",
    )  # fmt: skip
    common.add_argument("--address", help="a Ray cluster; none: $RAY_ADDRESS, else a local one for this run")
    common.add_argument("--output", help="output folder, or s3://, gs://, instead of the experiment file's")
    common.add_argument("--quiet", action="store_true", help="plain lines of progress, also on a terminal")
    common.add_argument("--json", action="store_true", help="the result as one JSON object on standard output")

    def add(name: str, help_text: str, command: Callable[[argparse.Namespace], int], file: bool = True) -> Any:
        added = commands.add_parser(name, help=help_text, description=help_text, parents=[common])
        added.set_defaults(command=command, stage=name)
        if file:
            added.add_argument("experiment", type=Path, metavar="EXPERIMENT.yaml")
        return added

    add("demo", "the embedded experiment on digits, whole: two to three minutes", _demo, file=False)
    add("run", "align, craft, evaluate, report: whatever of it is missing", _run)
    add("align", "make the networks that are missing: trained or aligned here", _run)
    add("craft", "craft the adversarial images that are missing", _run)
    add("evaluate", "evaluate the cells that are missing", _run)
    report = add("report", "tables, figures and the page, from what is there", _run)
    report.add_argument("--log", action="store_true", help="tell MLflow again, also what it was told before")
    _add_tune(add("tune", "a sweep over the settings of the alignment; goes on where it was stopped", _tune))
    add("plan", "what a run would do: what is there, what is missing, how long it takes, what it leaves", _plan)
    status = add("status", "every cell: missing, partial, done, failed", _status)
    status.add_argument("--watch", action="store_true", help="look again and again, while a run goes on elsewhere")
    verify = add("verify", "check a finished experiment: hashes, counts, eps-balls, a sample of predictions", _verify)
    verify.add_argument("--sample", type=int, default=20, metavar="N", help="images of each set to predict again (20)")
    verify.add_argument("--seed", type=int, default=0, help="of the draw of these images (0)")
    _add_schedule(add("schedule", "recurring evaluations, each a job on a Ray cluster", _schedule, file=False))
    ui = add("ui", "the MLflow page of this experiment's tracking store", _ui)
    ui.add_argument("--port", type=int, default=5000)
    return parser


def _add_tune(tune: argparse.ArgumentParser) -> None:
    # Names are checked where the experiment is known, with the nearest that there is.
    tune.add_argument("--space", required=True, help="a search space: a name in tune_spaces, or a YAML file")
    tune.add_argument(
        "--samples", type=int, metavar="N", help="how many settings to try; not for a grid, which has its own"
    )
    tune.add_argument("--searcher", default="random", help="random (the default), optuna or grid")
    tune.add_argument("--scheduler", default="none", help="none (the default), or asha: the hopeless are stopped early")
    tune.add_argument("--concurrent", type=int, metavar="K", help="trials at once; none: as compute.workers allows")
    tune.add_argument(
        "--max-clean-drop", type=float, default=1.0, metavar="POINTS",
        help="of clean accuracy that the chosen settings may cost (default: 1.0)",
    )  # fmt: skip
    tune.add_argument("--attack", help="what is crafted on the validation images; none: the experiment's first")


def _add_schedule(schedule: argparse.ArgumentParser) -> None:
    schedule.description = (
        "Submits the entries of a schedule as they are due, until Ctrl-C. Here --set is laid over the schedule file; "
        "--address, a cluster's job server (http://...), and --output stand for those of every entry."
    )
    schedule.add_argument("schedule", type=Path, metavar="SCHEDULE.yaml")
    how = schedule.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="only what is due now; waits for it to end")
    how.add_argument("--list", action="store_true", help="the next and the last run of every entry; asks no cluster")


def _request(options: argparse.Namespace) -> "Request":
    from pipelines.run.command import Request

    return Request(
        options.experiment, options.overrides, options.output, options.address, options.quiet or options.json
    )


def _demo(options: argparse.Namespace) -> int:
    options.experiment, options.stage = RECIPES / "demo.yaml", "run"
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from pipelines.run.command import STAGES, run

    stages = STAGES if options.stage == "run" else (options.stage,)
    result = run(_request(options), stages, log=getattr(options, "log", False))
    if options.json:
        print(json.dumps(result.as_json()))
    elif result.report is not None:
        _print_result(result, options)
    return 0


def _print_result(result: "Result", options: argparse.Namespace) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pipelines.report.page import verdicts
    from pipelines.storage.credentials import without_credentials

    assert result.report is not None
    table = Table(box=box.SIMPLE_HEAD, title="mean over the targets, %, with 95 % intervals over images")
    for column in ("surrogate", "attack", "transfer rate", "gain over the source", "clean accuracy"):
        table.add_column(column, justify="left" if column in ("surrogate", "attack") else "right")
    for row in result.report.means():
        gain = "" if row["gain"] is None else f"{row['gain']:+.1f} ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"
        rate = "" if row["rate"] is None else f"{row['rate']:.1f} ({row['rate_low']:.1f} to {row['rate_high']:.1f})"
        table.add_row(row["surrogate"], row["attack"], rate, gain, f"{row['clean_accuracy']:.1f}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for line in verdicts(result.report):
        if line.startswith("aligned under"):
            console.print(line, highlight=False, soft_wrap=True)
    again = ["witness", "ui", str(options.experiment)]
    for key, _, value in (override.partition("=") for override in options.overrides):
        again += ["--set", f"{key}={without_credentials(value)}"]
    again += ["--output", without_credentials(options.output)] if options.output else []
    print(f"report: {result.location}/report/report.html")
    print(f"MLflow: {shlex.join(again)}   ({result.tracking})")


def _tune(options: argparse.Namespace) -> int:
    from pipelines.sweep.command import tune_experiment
    from pipelines.sweep.study import Options

    names = ("space", "samples", "searcher", "scheduler", "concurrent", "max_clean_drop", "attack")
    result = tune_experiment(_request(options), Options(**{name: getattr(options, name) for name in names}))
    if options.json:
        print(json.dumps(result.as_json()))
    else:
        _print_sweep(result, options)
    return 0


def _print_sweep(result: "SweepResult", options: argparse.Namespace) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, title="trials, on validation images and targets; * not beaten in gain and accuracy"
    )
    for column in (*result.keys, "gain", "clean accuracy", "status"):
        table.add_column(column, justify="right")
    for row in result.rows[:20]:
        gain = "" if row["gain"] is None else f"{row['gain']:+.1f} ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"
        accuracy = "" if row["clean_accuracy"] is None else f"{row['clean_accuracy']:.1f}"
        mark = " *" if row["pareto"] else ""
        settings = (str(value) for key, value in row.items() if key in result.keys)
        table.add_row(*settings, gain + mark, accuracy, row["status"])
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    if len(result.rows) > 20:
        print(f"and {len(result.rows) - 20} more in {result.location}/trials.csv")
    if result.test is not None:
        _print_result(result.test, options)
        for contrast in result.contrast:
            if contrast["target"] == "(mean)" and contrast["gain"] is not None:
                ends = f"{contrast['gain_low']:+.1f} to {contrast['gain_high']:+.1f}"
                gain = f"{contrast['gain']:+.1f} points ({ends})"
                print(f"chosen against default settings under {contrast['attack']}, test targets: {gain}")
        print(f"best settings: {result.location}/best.yaml")
    print(f"trials: {result.location}/trials.csv, sweep.png")


def _plan(options: argparse.Namespace) -> int:
    from pipelines.run.forecast import forecast

    return _print_lines(forecast(_request(options)), options)


def _print_lines(found: Any, options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps(found.as_json()))
        return 0
    for line in found.lines():
        print(line)
    return 0


def _status(options: argparse.Namespace) -> int:
    from pipelines.run.status import status_of

    if options.watch:
        return _watch(options)
    return _print_lines(status_of(_request(options)), options)


def _watch(options: argparse.Namespace) -> int:
    """A line, or a JSON object in one, for every change; it ends when all is done."""
    from pipelines.run.status import watch

    first, said = None, ""
    for status in watch(_request(options)):
        first = first or status
        line = json.dumps(status.as_json()) if options.json else status.since(first)
        if status.sums() != said:
            said = status.sums()
            print(line, flush=True)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from pipelines.run.verify import verify

    found = verify(_request(options), options.sample, options.seed)
    _print_lines(found, options)
    return 1 if found.findings else 0


def _schedule(options: argparse.Namespace) -> int:
    from pipelines.progress import Progress
    from pipelines.schedule.cron import utc_now
    from pipelines.schedule.file import load_schedule
    from pipelines.schedule.outlook import lines_of, outlook
    from pipelines.schedule.scheduler import Scheduler

    schedule = load_schedule(options.schedule, options.overrides, options.output, options.address)
    if options.list:
        entries = outlook(schedule, utc_now())
        if options.json:
            print(json.dumps({"schedule": schedule.name, "entries": [entry.as_json() for entry in entries]}))
        else:
            print(*(entry.line() for entry in entries), sep="\n")
        return 0
    progress = Progress(quiet=True)
    scheduler = Scheduler(schedule, progress.say)
    scheduler.check(options.schedule)
    if options.once:
        runs = scheduler.once()
        if options.json:
            print(json.dumps({"schedule": schedule.name, "runs": [run.as_json() for run in runs]}))
        else:
            lines = [line for run in runs for line in lines_of(run)]
            print("\n".join(lines or ["no run has ended"]))
        return int(any(run.status != "succeeded" for run in runs))
    names = ", ".join(entry.name for entry in schedule.entries)
    progress.say(f"schedule {schedule.name}: {names}, until Ctrl-C")
    for run in scheduler.forever():
        print(json.dumps(run.as_json()) if options.json else "\n".join(lines_of(run)), flush=True)
    return 0


def _ui(options: argparse.Namespace) -> int:
    from pipelines.report.to_mlflow import serve_page
    from pipelines.tracking.runs import tracking_uri

    return serve_page(tracking_uri(_request(options).experiment()), options.port)


if __name__ == "__main__":
    sys.exit(main())
