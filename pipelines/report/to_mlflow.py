"""Logs the report to MLflow: one MLflow experiment per name, with a child run per surrogate below one parent run.

Results are files first and are logged afterwards. What was logged is not logged again, and a server that is down costs
no more than a warning.
"""

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.experiment.surrogates import Surrogate, series_of
from pipelines.report.described import description, description_of
from pipelines.report.headline import headline, headline_attack, headline_of_seed, tables_of
from pipelines.report.page import written_files
from pipelines.report.spans import Spans
from pipelines.report.tabled import Report
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.credentials import without_credentials
from pipelines.storage.csv_table import from_csv
from pipelines.storage.store import Say, fingerprint_of
from pipelines.tracking.models import mlflow_model
from pipelines.tracking.runs import ImageSet, Point, Runs, log_to_mlflow, tracking_uri

_CURVES = ("loss", "alignment_loss", "label_loss", "grad_norm", "lr")
_MODEL = "model"  # the folder of a run's artifacts that is an MLflow model


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
    if blueprint.experiment.mlflow_models != "aligned":
        marker["mlflow_models"] = blueprint.experiment.mlflow_models
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
    spans, attack = Spans(blueprint), headline_attack(blueprint.experiment)
    parent = parent_run(runs, blueprint, spans.whole.began)
    for name in written_files(blueprint.store):
        if "/" not in name:  # the tables for LaTeX and Markdown stay in the folder
            runs.log_artifact(parent, name, blueprint.store.read(f"report/{name}"))
    runs.log_artifact(parent, "experiment.yaml", blueprint.store.read("experiment.yaml"))
    series: dict[str, list[Surrogate]] = {}
    for surrogate in blueprint.surrogates:
        series.setdefault(surrogate.series, []).append(surrogate)
    first = next((name for name, own in series.items() if own[0].is_aligned), next(iter(series)))
    runs.log_changed_metrics(parent, headline(report, first, attack))
    runs.describe(parent, description(blueprint, report))
    for name, own in series.items():
        fingerprints = [_run_fingerprint(blueprint, surrogate) for surrogate in own]
        span, several = spans.of(own), bool(blueprint.experiment.seeds)
        fingerprint = fingerprint_of(fingerprints) if several else fingerprints[0]
        run = runs.run("surrogate", name, parent, fingerprint, span.began, _pending(blueprint, parent, name))
        runs.log_changed_metrics(run, headline(report, name, attack))  # first: see `live.py`
        if several:  # of which some may have failed
            _log_seeds(runs, run, blueprint, report, own, spans)
        else:
            _log_surrogate(runs, run, blueprint, own[0])
        for file, content in tables_of(report, name).items():
            runs.log_artifact(run, file, content, folder="tables")
        runs.describe(run, description_of(report, name))
        runs.log_images(run, image_sets(blueprint, own[0]))
        runs.end(run, at=span.ended)
    runs.end(parent, at=spans.whole.ended)
    for left in runs.left_open(place_of(blueprint)):  # of surrogates that could not be made
        runs.end(left, "FAILED")


def parent_run(runs: Runs, blueprint: Blueprint, began: float | None = None) -> str:
    """The run of the whole experiment, with what was asked; another one where something else was asked before.

    MLflow does not allow a parameter to change. The runs of surrogates that both have move to the newer one.
    """
    experiment = blueprint.experiment
    asked = {
        "source": ", ".join(experiment.sources),
        "witnesses": ", ".join(experiment.witnesses),
        "targets": ", ".join(experiment.targets),
        "controls": ", ".join(experiment.controls),
        "variants": ", ".join(experiment.variants),
        "seed": ", ".join(map(str, experiment.seeds or [experiment.seed])),
        "test_images": len(blueprint.inspected.manifests["test"]),
        **_image_parameters(blueprint),
        **_dotted("align", experiment.align.effective),
        **_attack_parameters(blueprint),
    }
    parent = runs.run("experiment", experiment.name, None, fingerprint_of([experiment.name, asked]), began)
    runs.log_new_parameters(parent, asked)
    runs.log_images(parent, image_sets(blueprint))
    return parent


def pending_run(runs: Runs, blueprint: Blueprint, parent: str, surrogate: Surrogate) -> str:
    """The run of a surrogate that is being made, with its parameters: that of its seed, where there are several.

    Its weights are not known yet. Once they are, the report finds the run again by its parent and parameters.
    """
    if blueprint.experiment.seeds:
        parent = runs.run("surrogate", surrogate.series, parent, _pending(blueprint, parent, surrogate.series))
    kind = "seed" if blueprint.experiment.seeds else "surrogate"
    run = runs.run(kind, surrogate.name, parent, _pending(blueprint, parent, surrogate.name))
    runs.log_new_parameters(run, _parameters(blueprint, surrogate))
    return run


def _pending(blueprint: Blueprint, parent: str, name: str) -> str:
    """Identifies the run of a surrogate, or of all its seeds, while weights are not known yet."""
    own = [surrogate for surrogate in blueprint.planned if name in (surrogate.name, surrogate.series)]
    return f"pending-{fingerprint_of([parent, name, [_parameters(blueprint, surrogate) for surrogate in own]])}"


def place_of(blueprint: Blueprint) -> str:
    """A name of the experiment's folder that no other has: on a disk, it belongs to this machine."""
    host = socket.gethostname() if blueprint.store.is_local else ""
    return fingerprint_of([host, blueprint.store.location])


def image_sets(blueprint: Blueprint, surrogate: Surrogate | None = None) -> list[ImageSet]:
    """The image sets of the experiment; with a surrogate, those that it was made and measured on."""
    found = []
    for role, manifest in blueprint.inspected.manifests.items():
        if surrogate is not None and role != "test" and (role != "train" or surrogate.align is None):
            continue
        config = getattr(blueprint.experiment.data, role)
        source = without_credentials(config.path or config.kind)
        name = source.rstrip("/").rpartition("/")[2].partition("?")[0]
        profile = {"images": len(manifest), "classes": blueprint.experiment.data.classes_count}
        found.append(ImageSet(name, role, manifest.digest, source, profile))
    return found


def _log_seeds(
    runs: Runs, run: str, blueprint: Blueprint, report: Report, series: Sequence[Surrogate], spans: Spans
) -> None:
    """Logs what a surrogate is over all seeds, and below it a run for each seed, with the curves of its fine-tune."""
    seeds = ", ".join(str(surrogate.seed) for surrogate in series)
    witnesses = ", ".join(map(series_of, _witnesses(blueprint, series[0])))
    own_parameters = {"surrogate": series[0].series, "witnesses": witnesses, "seed": seeds}
    runs.log_new_parameters(run, _parameters(blueprint, series[0]) | own_parameters)
    for surrogate in series:
        span, fingerprint = spans.of([surrogate]), _run_fingerprint(blueprint, surrogate)
        own = runs.run("seed", surrogate.name, run, fingerprint, span.began, _pending(blueprint, run, surrogate.name))
        metrics = headline_of_seed(report, surrogate, headline_attack(blueprint.experiment))
        runs.log_changed_metrics(own, metrics)
        _log_surrogate(runs, own, blueprint, surrogate)
        runs.log_images(own, image_sets(blueprint, surrogate))
        runs.end(own, at=span.ended)


def _run_fingerprint(blueprint: Blueprint, surrogate: Surrogate) -> str:
    """Identifies the MLflow run of a surrogate: by its alignment, images and attacks, and by all logged parameters.

    The names of models are among the parameters. MLflow does not allow a parameter to change, so a renamed model needs
    a new run. Targets are left out, so that a target that is added later adds metrics to the same run.
    """
    attacks = {attack: blueprint.adversarial(surrogate, attack).fingerprint for attack in blueprint.experiment.attacks}
    return fingerprint_of([attacks, _parameters(blueprint, surrogate)])


def _log_surrogate(runs: Runs, run: str, blueprint: Blueprint, surrogate: Surrogate) -> None:
    runs.log_new_parameters(run, _parameters(blueprint, surrogate))
    card = f"models/{surrogate.name}/card.json"
    if surrogate.align is not None and blueprint.store.exists(card):
        runs.log_artifact(run, "card.json", blueprint.store.read(card))
        if runs.tags(run).get("witness.curves") != "logged":
            curves = from_csv(blueprint.store.read(f"models/{surrogate.name}/curves.csv"))
            runs.log_missing_points(run, curve_points(curves))
            runs.set_tag(run, "witness.curves", "logged")
    is_first = surrogate.series == "aligned" and surrogate.seed == blueprint.experiment.seed
    registered_as = blueprint.experiment.registered_as if is_first else None
    if registered_as is not None or _is_mlflow_model(blueprint, surrogate):
        digest = str(blueprint.networks[surrogate.name].digest)
        _log_model(runs, run, blueprint, surrogate, digest)
        if registered_as is not None:
            runs.register(run, _MODEL, registered_as, digest)


def _is_mlflow_model(blueprint: Blueprint, surrogate: Surrogate) -> bool:
    """Whether the experiment asks for it: a surrogate that is made here, and is a single network."""
    which, is_made = blueprint.experiment.mlflow_models, surrogate.align is not None and len(surrogate.members) == 1
    is_main = surrogate.role == "aligned" and surrogate.seed == blueprint.experiment.seed
    return is_made and (which == "all" or (which == "aligned" and is_main))


def _log_model(runs: Runs, run: str, blueprint: Blueprint, surrogate: Surrogate, digest: str) -> None:
    """Logs a network as an MLflow model, unless the run has it."""
    if runs.tags(run).get("witness.model") == digest:
        return
    store, folder = blueprint.store, f"models/{surrogate.name}"
    card, weights = (store.read(f"{folder}/{file}") for file in ("card.json", "model.safetensors"))
    classes, code = blueprint.experiment.data.classes_count, _own_code(blueprint, surrogate)
    runs.log_files(run, mlflow_model(card, weights, digest, blueprint.inspected.shape, classes, code), _MODEL)
    runs.set_tag(run, "witness.model", digest)


def _own_code(blueprint: Blueprint, surrogate: Surrogate) -> dict[str, bytes]:
    """The modules of a surrogate's factory that lie beside the experiment; what is installed is not copied."""
    folder, found = Path(blueprint.experiment.factories or "."), {}
    for module in blueprint.networks[surrogate.name].code or ():
        stem = module.replace(".", "/")
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if (folder / path).is_file():
                found[path] = (folder / path).read_bytes()
    return found


def _parameters(blueprint: Blueprint, surrogate: Surrogate) -> dict[str, Any]:
    """The settings that determine the results, under their dotted keys."""
    parameters: dict[str, Any] = {
        "surrogate": surrogate.name,
        "source": surrogate.source,
        "witnesses": ", ".join(_witnesses(blueprint, surrogate)),
        "seed": surrogate.seed,
        **_image_parameters(blueprint),
    }
    if len(surrogate.members) > 1:
        parameters |= {"members": ", ".join(surrogate.members), "combine": surrogate.combine}
    if surrogate.align is not None:
        parameters |= {"refinement": surrogate.refine, **_dotted("align", surrogate.align.effective)}
    return parameters | _attack_parameters(blueprint)


def _witnesses(blueprint: Blueprint, surrogate: Surrogate) -> tuple[str, ...]:
    """The models that a surrogate is aligned to; of a control that consists of witnesses, these."""
    if surrogate.witnesses or not surrogate.role:
        return surrogate.witnesses
    return tuple(name for name in surrogate.members if name in blueprint.experiment.witnesses)


def _image_parameters(blueprint: Blueprint) -> dict[str, Any]:
    data = blueprint.experiment.data
    return {
        "data.image_size": data.image_size,
        "data.resize": data.fit.short_side,
        "data.interpolation": data.interpolation,
    }


def _attack_parameters(blueprint: Blueprint) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, attack in blueprint.experiment.attacks.items():
        parameters |= _dotted(f"attacks.{name}", asdict(attack))
    return parameters


def _dotted(prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _dotted(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat
