"""Logs the report to MLflow: one MLflow experiment per name, with a child run per surrogate below one parent run.

Results are files first and are logged afterwards. What was logged is not logged again, and a server that is down costs
no more than a warning.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.experiment.surrogates import Surrogate, series_of
from pipelines.report.fine_tune_times import FINE_TUNE
from pipelines.report.page import written_files
from pipelines.report.tabled import Report
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.credentials import without_credentials
from pipelines.storage.csv_table import from_csv
from pipelines.storage.store import Say, fingerprint_of
from pipelines.tracking.registry import REGISTERED
from pipelines.tracking.runs import Point, Runs, log_to_mlflow, tracking_uri

_CURVES = ("loss", "alignment_loss", "label_loss", "grad_norm", "lr")
# The columns of transfer.csv, contrasts.csv and (per attack, and over all attacks) surrogates.csv that become metrics.
_TRANSFER = (
    "rate", "rate_low", "rate_high", "rate_all", "targeted_rate", "targeted_low", "targeted_high", "gain", "gain_low",
    "gain_high", "p_value", "n", "gradients", "rate_spread", "gain_spread", "gain_both_low", "gain_both_high",
)  # fmt: skip
_CONTRAST = ("gain", "gain_low", "gain_high", "gain_spread", "gain_both_low", "gain_both_high")
_OF_SEED = ("rate", "targeted_rate", "gain", "n")
_UNDER_ATTACK = ("attacked_accuracy", "whitebox_rate", "whitebox_targeted_rate", "mean_l2", "mean_ssim")
_OVER_ALL = ("clean_accuracy", "clean_spread", "clean_change", "witness_agreement", "robust_accuracy")


def curve_points(curve: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The curves of an alignment as points of MLflow metrics, with the timestamps of the steps themselves.

    Args:
        curve: a row per step, with the columns of curves.csv as numbers or as text.
    """
    return [
        (f"curve/{name}", float(row[name]), float(row["timestamp"]), int(row["step"]))
        for row in curve
        for name in _CURVES
    ]


def log_report(blueprint: Blueprint, report: Report, say: Say, again: bool = False) -> bool:
    """Logs the report to the experiment's tracking server; returns whether the server has all of it.

    A report that was logged to that server before is not sent again unless `again` is set. If the server cannot be
    reached, `say` is called with a warning, and the result is False. Where the experiment has `registered_as`, the
    aligned model, of several seeds that of the first, is also registered under that name.
    """
    uri = without_credentials(tracking_uri(blueprint.experiment))
    marker = {"report": report.fingerprint, "tracking": fingerprint_of(uri)}
    if blueprint.experiment.registered_as is not None:
        marker["register"] = blueprint.experiment.registered_as
    if not again and blueprint.store.read_json("report/logged.json") == marker:
        return True
    is_logged = log_to_mlflow(
        blueprint.experiment,
        say,
        "`witness report --log` sends them",
        lambda runs: _write_report(runs, blueprint, report),
    )
    if is_logged:
        blueprint.store.write_json("report/logged.json", marker)
    return is_logged


def _write_report(runs: Runs, blueprint: Blueprint, report: Report) -> None:
    parent = runs.run("experiment", blueprint.experiment.name, None, fingerprint_of(blueprint.experiment.name))
    for name in written_files(blueprint.store):
        if "/" not in name:  # the tables for LaTeX and Markdown stay in the folder
            runs.log_artifact(parent, name, blueprint.store.read(f"report/{name}"))
    runs.log_artifact(parent, "experiment.yaml", blueprint.store.read("experiment.yaml"))
    series: dict[str, list[Surrogate]] = {}
    for surrogate in blueprint.surrogates:
        series.setdefault(surrogate.series, []).append(surrogate)
    for name, own in series.items():
        fingerprints = [_run_fingerprint(blueprint, surrogate) for surrogate in own]
        several = bool(blueprint.experiment.seeds)
        run = runs.run("surrogate", name, parent, fingerprint_of(fingerprints) if several else fingerprints[0])
        if several:  # of which some may have failed
            _log_seeds(runs, run, blueprint, report, own)
        else:
            _log_surrogate(runs, run, blueprint, own[0], _metrics(report, name))
        runs.end(run)
    runs.end(parent)


def _log_seeds(runs: Runs, run: str, blueprint: Blueprint, report: Report, series: Sequence[Surrogate]) -> None:
    """Logs what a surrogate is over all seeds, and below it a run for each seed, with the curves of its fine-tune."""
    seeds = ", ".join(str(surrogate.seed) for surrogate in series)
    witnesses = ", ".join(map(series_of, series[0].witnesses))
    own_parameters = {"surrogate": series[0].series, "witnesses": witnesses, "seed": seeds}
    runs.log_new_parameters(run, _parameters(blueprint, series[0]) | own_parameters)
    runs.log_changed_metrics(run, _metrics(report, series[0].series))
    for surrogate in series:
        own = runs.run("seed", surrogate.name, run, _run_fingerprint(blueprint, surrogate))
        runs.set_tag(own, "mlflow.parentRunId", run)  # which was another one before a seed was added or left out
        _log_surrogate(runs, own, blueprint, surrogate, _metrics_of_seed(report, surrogate))
        runs.end(own)


def _run_fingerprint(blueprint: Blueprint, surrogate: Surrogate) -> str:
    """Identifies the MLflow run of a surrogate: by its alignment, images and attacks, and by all logged parameters.

    The names of models are among the parameters. MLflow does not allow a parameter to change, so a renamed model needs
    a new run. Targets are left out, so that a target that is added later adds metrics to the same run.
    """
    attacks = {attack: blueprint.adversarial(surrogate, attack).fingerprint for attack in blueprint.experiment.attacks}
    return fingerprint_of([attacks, _parameters(blueprint, surrogate)])


def _log_surrogate(runs: Runs, run: str, blueprint: Blueprint, surrogate: Surrogate, metrics: dict[str, float]) -> None:
    runs.log_new_parameters(run, _parameters(blueprint, surrogate))
    runs.log_changed_metrics(run, metrics)
    card = f"models/{surrogate.name}/card.json"
    if surrogate.align is not None and blueprint.store.exists(card):
        runs.log_artifact(run, "card.json", blueprint.store.read(card))
        if runs.tags(run).get("witness.curves") != "logged":
            curves = from_csv(blueprint.store.read(f"models/{surrogate.name}/curves.csv"))
            runs.log_points(run, curve_points(curves))
            runs.set_tag(run, "witness.curves", "logged")
    is_first = surrogate.series == "aligned" and surrogate.seed == blueprint.experiment.seed
    if is_first and blueprint.experiment.registered_as is not None:
        for name in REGISTERED:
            runs.log_artifact(run, name, blueprint.store.read(f"models/{surrogate.name}/{name}"), folder="model")
        digest = blueprint.networks[surrogate.name].digest
        runs.register(run, "model", blueprint.experiment.registered_as, str(digest))


def _parameters(blueprint: Blueprint, surrogate: Surrogate) -> dict[str, Any]:
    """The settings that determine the results, under their dotted keys."""
    experiment = blueprint.experiment
    parameters: dict[str, Any] = {
        "surrogate": surrogate.name,
        "source": surrogate.source,
        "witnesses": ", ".join(surrogate.witnesses),
        "seed": surrogate.seed,
        "data.image_size": experiment.data.image_size,
        "data.resize": experiment.data.fit.short_side,
        "data.interpolation": experiment.data.interpolation,
    }
    if surrogate.align is not None:
        parameters |= _dotted("align", surrogate.align.effective)
    for name, attack in experiment.attacks.items():
        parameters |= _dotted(f"attacks.{name}", asdict(attack))
    return parameters


def _dotted(prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _dotted(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _metrics(report: Report, surrogate: str) -> dict[str, float]:
    """The figures of one surrogate under the names of their MLflow metrics, such as `<attack>/<target>/rate`.

    Blank figures are left out. MLflow does not allow brackets in names, so `(mean)` becomes `mean`.
    """
    metrics: dict[str, float] = {}
    for row in report.transfer:
        if row["surrogate"] == surrogate:
            metrics |= _numbers(f"{row['attack']}/{row['target'].strip('()')}/", row, _TRANSFER)
    for contrast in report.contrasts:
        if contrast["surrogate"] == surrogate:
            target = contrast["target"].strip("()")
            metrics |= _numbers(f"{contrast['attack']}/{target}/against {contrast['baseline']}/", contrast, _CONTRAST)
    for own in report.surrogates:
        if own["surrogate"] == surrogate:
            metrics |= _numbers(f"{own['attack'].strip('()')}/", own, _UNDER_ATTACK)
            metrics |= _numbers("", own, _OVER_ALL)
    for attack in dict.fromkeys(row["attack"] for row in report.times):
        spent = [row for row in report.times if (row["surrogate"], row["attack"]) == (surrogate, attack)]
        if spent:
            seconds, images = sum(row["seconds"] for row in spent), sum(row["images"] for row in spent)
            prefix = "fine_tune_" if attack == FINE_TUNE else f"{attack}/"
            metrics |= {f"{prefix}seconds": seconds, f"{prefix}images_per_second": images / seconds}
    return metrics


def _metrics_of_seed(report: Report, surrogate: Surrogate) -> dict[str, float]:
    """The figures of one of several seeds, under the same names."""
    metrics: dict[str, float] = {}
    for row in report.seeds:
        if (row["surrogate"], row["seed"]) == (surrogate.series, surrogate.seed):
            metrics |= _numbers(f"{row['attack']}/{row['target'].strip('()')}/", row, _OF_SEED)
            metrics |= _numbers("", row, ["clean_accuracy"])
    return metrics


def _numbers(prefix: str, row: Mapping[str, object], names: Sequence[str]) -> dict[str, float]:
    """These columns of a row, but for those that are blank, as metrics."""
    return {f"{prefix}{name}": float(value) for name in names if isinstance(value := row[name], int | float)}


def serve_page(uri: str, port: int) -> int:
    """Serves MLflow's user interface for a tracking database on a local port, until it is stopped with Ctrl-C.

    The process becomes that server, so the function returns only where `uri` is a tracking server, which has a user
    interface already: then it prints the address and returns the exit code 0.
    """
    if uri.startswith(("http://", "https://")):
        print(f"MLflow runs at {without_credentials(uri)}")
        return 0
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    # The URI may contain a password, and every user of this machine can read the command lines of its processes.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri})
