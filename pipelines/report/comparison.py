"""Several finished experiments side by side: which of their cells can be compared, and which settings differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align_core.errors import InputError
from pipelines.report.finished import Finished

COLUMNS = (
    "surrogate", "attack", "target", "experiment", "n", "gradients", "seeds", "rate", "rate_low", "rate_high",
    "rate_all", "gain", "gain_low", "gain_high",
)  # fmt: skip
"""The columns of comparison.csv. Each but `experiment` means what it means in transfer.csv."""

_PLACES = {"name", "warning", "compute", "path", "weights", "aligned", "checkpoint_steps"}
"""Keys that decide no result, or whose content has a hash that is compared instead."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What several experiments have in common, and what not.

    Attributes:
        labels: of the experiments, in their order.
        rows: the rows of comparison.csv: for every cell, one for each experiment that has it.
        differences: what differs, by its dotted key: what each experiment has, as text, "" where it has none.
        remarks: what was left out, and what has to be known of the figures, a sentence each.
        warnings: of the experiment files, by the label of the experiment.
    """

    labels: list[str]
    rows: list[Row]
    differences: dict[str, list[str]]
    remarks: list[str]
    warnings: dict[str, str]


def compared(experiments: Sequence[Finished]) -> Comparison:
    """Compares experiments. Raises InputError, saying why, where none of their cells can be compared."""
    if len(experiments) < 2:
        raise InputError("a comparison needs at least two experiments")
    _check_images(experiments)
    remarks: list[str] = []
    attacks = _alike(experiments, "attack", _attacks, remarks)
    targets = _alike(experiments, "target", _targets, remarks)
    if not attacks or not targets:
        what = "attack" if not attacks else "target"
        raise InputError(
            f"{', '.join(own.label for own in experiments)}: no {what} is the same in all, so that no cell can be "
            f"compared. {' '.join(remarks)}"
        )
    wanted = set(targets)
    if all(set(own.targets) == wanted for own in experiments):
        wanted.add("(mean)")
    else:
        remarks.append("Means are left out: the experiments have different targets.")
    if len({json.dumps(_hashes(own, own.results["roles"]["sources"])) for own in experiments}) > 1:
        remarks.append(
            "The sources differ. A rate is over the images that an experiment's own source classifies correctly, so "
            "that n may differ; rate_all is over the same images."
        )
    return Comparison(
        [own.label for own in experiments],
        _rows(experiments, set(attacks), wanted),
        _differences(experiments),
        remarks,
        {own.label: own.results["warning"] for own in experiments if own.results["warning"]},
    )


def _check_images(experiments: Sequence[Finished]) -> None:
    first = experiments[0]
    for other in experiments[1:]:
        images, others = (own.results["images"]["test"] for own in (first, other))
        if images["hash"] != others["hash"]:
            raise InputError(
                f"{first.label} and {other.label} cannot be compared: they were measured on different test images "
                f"({images['count']:,} with the hash {images['hash'][:12]}, and {others['count']:,} with "
                f"{others['hash'][:12]}). Run both with the same `data.test`, `image_size` and `resize`"
            )


def _attacks(own: Finished) -> dict[str, Any]:
    return dict(own.settings["attacks"])


def _targets(own: Finished) -> dict[str, Any]:
    """What decides the predictions of each target: its settings without places, and the hash of its weights."""
    models, hashes = own.settings["models"], own.results["weights"]
    return {name: [_without_places(models.get(name)), hashes.get(name)] for name in own.targets}


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items() if key not in (*_PLACES, "family")}
    return value


def _alike(experiments: Sequence[Finished], kind: str, of: Any, remarks: list[str]) -> list[str]:
    """The names of attacks or targets that are the same in all experiments. `remarks` gets what is left out."""
    found = [of(own) for own in experiments]
    names = list(dict.fromkeys(name for own in found for name in own))
    alike, others, missing = [], [], []
    for name in names:
        if not all(name in own for own in found):
            missing.append(name)
        elif any(own[name] != found[0][name] for own in found):
            others.append(name)
        else:
            alike.append(name)
    if missing:
        remarks.append(f"Left out, because not every experiment has this {kind}: {', '.join(missing)}.")
    if others:
        remarks.append(f"Left out, because this {kind} is not the same in all: {', '.join(others)}.")
    return alike


def _hashes(own: Finished, names: Sequence[str]) -> list[Any]:
    return [own.results["weights"].get(name) for name in names]


def _rows(experiments: Sequence[Finished], attacks: set[str], targets: set[str]) -> list[Row]:
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for own in experiments:
        for row in own.rows("transfer"):
            if row["attack"] in attacks and row["target"] in targets:
                line = {column: row.get(column) for column in COLUMNS} | {"experiment": own.label}
                cells.setdefault((row["surrogate"], row["attack"], row["target"]), []).append(line)
    return [row for rows in cells.values() for row in rows]


def _differences(experiments: Sequence[Finished]) -> dict[str, list[str]]:
    """The settings, weights and versions in which the experiments differ."""
    found = [dict(_described(own)) for own in experiments]
    keys = dict.fromkeys(key for own in found for key in own)
    values = {key: [own.get(key, "") for own in found] for key in keys}
    return {key: own for key, own in values.items() if len(set(own)) > 1}


def _described(own: Finished) -> Iterator[tuple[str, str]]:
    yield from _dotted("", own.settings)
    compute = own.settings.get("compute", {})
    yield from ((f"compute.{key}", str(compute[key])) for key in ("precision", "chunk", "pass") if key in compute)
    models = own.settings["models"]
    for name, digest in own.results["weights"].items():
        if name in models:
            yield f"weights of {name}", "" if digest is None else str(digest)[:12]
    for role, images in own.results["images"].items():
        yield f"images: {role}", f"{images['count']:,} ({images['hash'][:12]})"
    for package, version in own.results["versions"].items():
        yield f"version of {package}", str(version)


def _dotted(prefix: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if key in _PLACES:
            continue
        if isinstance(value, dict):
            yield from _dotted(f"{prefix}{key}.", value)
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{key}", text
