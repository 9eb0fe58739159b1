"""A function for every command over an experiment or a schedule: parsed options in, exit code out.

Each imports what it needs when it is called, because Ray, torch and MLflow take seconds to import.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.show import print_clean, print_forecast, print_result, print_status, print_sweep, print_text

if TYPE_CHECKING:
    from pipelines.run.request import Request

RECIPES = Path(__file__).parents[1] / "recipes"
"""The folder of the experiments that ship with Witness."""


def _request(options: argparse.Namespace) -> "Request":
    from pipelines.run.request import Request

    return Request(
        options.experiment,
        options.overrides,
        options.output,
        options.address,
        quiet=options.quiet or options.json,
        rehash=getattr(options, "rehash", False),
        dashboard=getattr(options, "dashboard", False),
    )


def demo_command(options: argparse.Namespace) -> int:
    """Runs the experiment `recipes/demo.yaml`, as `witness run` would, and prints its result."""
    options.experiment, options.stage = RECIPES / "demo.yaml", "run"
    return run_command(options)


def run_command(options: argparse.Namespace) -> int:
    """Runs one stage of an experiment (`options.stage`), or all of them where the stage is called `run`."""
    from pipelines.run.command import run
    from pipelines.stages.blueprint import STAGES

    stages = STAGES if options.stage == "run" else (options.stage,)
    result = run(_request(options), stages, log=getattr(options, "log", False))
    if options.json:
        print(json.dumps(result.as_json()))
    elif result.report is not None:
        print_result(result, options)
    return _said_with_holes(result.holes)


def _said_with_holes(holes: Sequence[str]) -> int:
    """The exit code of a run: 1, with a line that says what could not be made, where there is such."""
    for hole in holes:
        print(f"witness: {hole}", file=sys.stderr)
    if holes:
        print(f"witness: {len(holes)} of the networks and tables could not be made; all others are", file=sys.stderr)
    return 1 if holes else 0


def evaluate_command(options: argparse.Namespace) -> int:
    """Evaluates what is missing of an experiment or, with `--clean`, prints clean accuracies alone."""
    if not options.clean:
        return run_command(options)
    from pipelines.run.clean import evaluate_clean

    result = evaluate_clean(_request(options))
    if options.json:
        print(json.dumps(result.as_json()))
    else:
        print_clean(result)
    return _said_with_holes(result.holes)


def tune_command(options: argparse.Namespace) -> int:
    """Runs a sweep, or resumes it."""
    from pipelines.sweep.command import tune_experiment
    from pipelines.sweep.study import Options

    names = ("space", "samples", "searcher", "scheduler", "concurrent", "max_clean_drop", "attack", "surrogate")
    result = tune_experiment(_request(options), Options(**{name: getattr(options, name) for name in names}))
    if options.json:
        print(json.dumps(result.as_json()))
    else:
        print_sweep(result, options)
    return _said_with_holes(result.test.holes if result.test else [])


def plan_command(options: argparse.Namespace) -> int:
    """Prints the forecast of a run."""
    from pipelines.run.forecast import make_forecast

    forecast = make_forecast(_request(options))
    if options.cells or options.json:
        print_text(forecast, options.json)
    else:
        print_forecast(forecast)
    return 0


def status_command(options: argparse.Namespace) -> int:
    """Prints how far an experiment is; with `--watch`, at every change until nothing is left to wait for."""
    from pipelines.run.status import status_of

    if options.watch:
        return _watch(options)
    status = status_of(_request(options))
    if options.cells or options.json:
        print_text(status, options.json)
    else:
        print_status(status)
    return 0


def _watch(options: argparse.Namespace) -> int:
    from pipelines.run.status import watch

    first, has_begun, printed = None, False, ""
    for status in watch(_request(options)):
        if first is None or not has_begun:  # the rate counts from the first progress, after workers have started
            has_begun, first = first is not None and status.done > first.done, status
        line = json.dumps(status.as_json()) if options.json else status.since(first)
        if status.sums() != printed:
            printed = status.sums()
            print(line, flush=True)
    for line in status.failed():
        print(f"witness: {line}", file=sys.stderr)
    return 0


def verify_command(options: argparse.Namespace) -> int:
    """Checks a finished experiment. The exit code is 1 if anything is not what it claims to be."""
    from pipelines.run.verify import verify_experiment

    found = verify_experiment(_request(options), options.sample, options.seed)
    print_text(found, options.json)
    return 1 if found.findings else 0


def export_command(options: argparse.Namespace) -> int:
    """Writes finished adversarial images for other tools or, with `--clean`, the test images before any attack.

    The exit code is 1 where some can never be finished.
    """
    from align_core.errors import InputError
    from pipelines.export.command import export_clean, export_images
    from pipelines.export.forms import FORMS

    form = next(form for form in FORMS if getattr(options, form) is not None)
    request, path = _request(options), getattr(options, form)
    if options.clean and (options.surrogate or options.attack):
        raise InputError(
            "--clean exports the test images as they are before any attack, which are of no surrogate and no attack; "
            "leave out --surrogate and --attack, or --clean"
        )
    if options.clean:
        exported = export_clean(request, form, path)
    else:
        exported = export_images(request, form, path, options.surrogate, options.attack)
    print_text(exported, options.json)
    return _said_with_holes(exported.holes)


def compare_command(options: argparse.Namespace) -> int:
    """Writes the page and the table of several finished experiments side by side."""
    from pipelines.report.comparison import compared
    from pipelines.report.comparison_page import write_comparison
    from pipelines.report.finished import read_finished

    comparison = compared(read_finished(options.experiments))
    folder = write_comparison(comparison, options.output)
    if options.json:
        found = {"experiments": comparison.labels, "rows": len(comparison.rows), "remarks": comparison.remarks}
        print(json.dumps({"location": str(folder), **found, "differences": comparison.differences}))
        return 0
    for line in (*comparison.remarks, *(f"{key}: {' | '.join(own)}" for key, own in comparison.differences.items())):
        print(line)
    print(f"comparison: {folder / 'comparison.html'}, comparison.csv")
    return 0


def schedule_command(options: argparse.Namespace) -> int:
    """Submits the jobs of a schedule as they are due, or with `--list` only shows them."""
    from pipelines.progress import Progress
    from pipelines.schedule.cron import utc_now
    from pipelines.schedule.file import load_schedule
    from pipelines.schedule.overview import describe_run, overview_of
    from pipelines.schedule.scheduler import Scheduler

    schedule = load_schedule(options.schedule, options.overrides, options.output, options.address)
    if options.list:
        entries = overview_of(schedule, utc_now())
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
            lines = [line for run in runs for line in describe_run(run)]
            print("\n".join(lines or ["no run has ended"]))
        return int(any(run.status != "succeeded" for run in runs))
    names = ", ".join(entry.name for entry in schedule.entries)
    progress.say(f"schedule {schedule.name}: {names}, until Ctrl-C")
    for run in scheduler.forever():
        print(json.dumps(run.as_json()) if options.json else "\n".join(describe_run(run)), flush=True)
    return 0


def ui_command(options: argparse.Namespace) -> int:
    """Serves MLflow's page on the experiment's tracking store, until it is interrupted."""
    from pipelines.storage.store import Store
    from pipelines.tracking.page import serve_page

    experiment = _request(options).experiment()
    store = Store(experiment.output, experiment.name)
    if store.is_local:
        store.check_folder()
    return serve_page(experiment, options.port)
