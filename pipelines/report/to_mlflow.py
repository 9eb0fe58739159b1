"""What MLflow is told: one experiment per name, a run per surrogate below the run of the whole.

Results are files first; MLflow is told afterwards, and told nothing twice. A server that is down costs a warning.
"""

import csv
import io
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pipelines.experiment.surrogates import Surrogate
from pipelines.report.page import FILES, Report, Row
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Say, fingerprint_of
from pipelines.tracking.registry import REGISTERED
from pipelines.tracking.runs import Point, Runs, log_to_mlflow, tracking_uri

_CURVES = ("loss", "alignment_loss", "label_loss", "grad_norm", "lr")


def curve_points(curve: Iterable[Mapping[str, Any]]) -> list[Point]:
    """An alignment's curve, step by step with its own timestamps."""
    return [
        (f"curve/{name}", float(row[name]), float(row["timestamp"]), int(row["step"]))
        for row in curve
        for name in _CURVES
    ]


def log_report(blueprint: Blueprint, report: Report, say: Say, again: bool = False) -> bool:
    """Logs the report, but not one that was logged there before (unless `again`). Returns whether all is logged."""
    uri = without_credentials(tracking_uri(blueprint.experiment))
    marker = {"report": report.fingerprint, "tracking": fingerprint_of(uri)}
    if blueprint.experiment.registered_as is not None:
        marker["register"] = blueprint.experiment.registered_as
    if not again and blueprint.store.read_json("report/logged.json") == marker:
        return True
    is_told = log_to_mlflow(
        blueprint.experiment,
        say,
        "`witness report --log` sends them",
        lambda runs: _write_report(runs, blueprint, report),
    )
    if is_told:
        blueprint.store.write_json("report/logged.json", marker)
    return is_told


def _write_report(runs: Runs, blueprint: Blueprint, report: Report) -> None:
    parent = runs.run("experiment", blueprint.experiment.name, None, fingerprint_of(blueprint.experiment.name))
    for name in FILES:
        runs.log_artifact(parent, name, blueprint.store.read(f"report/{name}"))
    runs.log_artifact(parent, "experiment.yaml", blueprint.store.read("experiment.yaml"))
    for surrogate in blueprint.surrogates:
        run = runs.run("surrogate", surrogate.name, parent, _fingerprint(blueprint, surrogate))
        _log_surrogate(runs, run, blueprint, report, surrogate)
        runs.end(run)
    runs.end(parent)


def _fingerprint(blueprint: Blueprint, surrogate: Surrogate) -> str:
    """Of alignment, images, attacks and how they are called, for parameters cannot be changed.

    Not of targets: one that is added later adds metrics to the same run.
    """
    attacks = {attack: blueprint.adversarial(surrogate, attack).fingerprint for attack in blueprint.experiment.attacks}
    return fingerprint_of([attacks, _parameters(blueprint, surrogate)])


def _log_surrogate(runs: Runs, run: str, blueprint: Blueprint, report: Report, surrogate: Surrogate) -> None:
    runs.log_new_parameters(run, _parameters(blueprint, surrogate))
    runs.log_changed_metrics(run, _metrics(report, surrogate.name))
    card = f"models/{surrogate.name}/card.json"
    if surrogate.align is not None and blueprint.store.exists(card):
        runs.log_artifact(run, "card.json", blueprint.store.read(card))
        if runs.tags(run).get("witness.curves") != "logged":
            curves = io.StringIO(blueprint.store.read(f"models/{surrogate.name}/curves.csv").decode())
            runs.log_points(run, curve_points(csv.DictReader(curves)))
            runs.set_tag(run, "witness.curves", "logged")
    if surrogate.name == "aligned" and blueprint.experiment.registered_as is not None:
        for name in REGISTERED:
            runs.log_artifact(run, name, blueprint.store.read(f"models/aligned/{name}"), folder="model")
        runs.register(run, "model", blueprint.experiment.registered_as, str(blueprint.networks["aligned"].digest))


def _parameters(blueprint: Blueprint, surrogate: Surrogate) -> dict[str, Any]:
    """Settings that decide what comes out, under their dotted keys."""
    experiment = blueprint.experiment
    parameters: dict[str, Any] = {
        "surrogate": surrogate.name,
        "source": surrogate.source,
        "witnesses": ", ".join(surrogate.witnesses),
        "seed": experiment.seed,
        "data.image_size": experiment.data.image_size,
    }
    if surrogate.align is not None:
        parameters |= _dotted("align", surrogate.align.deciding)
    for name, attack in experiment.attacks.items():
        parameters |= _dotted(f"attacks.{name}", asdict(attack))
    return parameters


def _dotted(prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _dotted(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _metrics(report: Report, surrogate: str) -> dict[str, float]:
    """`<attack>/<target>/rate` and so on; a mean row loses its brackets, which MLflow does not take."""

    def of(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["surrogate"] == surrogate]

    metrics = {}
    for row in of(report.transfer):
        start = f"{row['attack']}/{row['target'].strip('()')}"
        for name in ("rate", "rate_low", "rate_high", "rate_all", "gain", "gain_low", "gain_high", "p_value", "n"):
            metrics[f"{start}/{name}"] = row[name]
    for row in of(report.contrasts):
        start = f"{row['attack']}/{row['target'].strip('()')}/against {row['baseline']}"
        for name in ("gain", "gain_low", "gain_high"):
            metrics[f"{start}/{name}"] = row[name]
    for row in of(report.surrogates):
        for name in ("attacked_accuracy", "whitebox_rate", "mean_l2"):
            metrics[f"{row['attack'].strip('()')}/{name}"] = row[name]
        for name in ("clean_accuracy", "clean_change", "witness_agreement", "robust_accuracy"):
            metrics[name] = row[name]
    return {name: float(value) for name, value in metrics.items() if value is not None}


def serve_page(uri: str, port: int) -> int:
    """Becomes the server of MLflow's own page on a database; a server has its page already. Returns the exit code."""
    if uri.startswith(("http://", "https://")):
        print(f"MLflow runs at {without_credentials(uri)}")
        return 0
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    # Not by the command line, which everyone on this machine can read.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri})
