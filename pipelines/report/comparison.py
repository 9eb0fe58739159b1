"""Several finished experiments side by side: which of their cells can be compared, and which settings differ."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align_core.errors import InputError
from pipelines.report.finished import Finished

COLUMNS = (
    "surrogate", "attack", "target", "experiment", "n", "gradients", "seeds", "rate", "rate_low", "rate_high",
    "rate_all", "targeted_rate", "targeted_low", "targeted_high", "gain", "gain_low", "gain_high",
)  # fmt: skip
"""The columns of comparison.csv. Each but `experiment` means what it means in transfer.csv."""

_LEFT_OUT = (
    ("name",), ("warning",), ("compute",), ("data", "*", "path"), ("data", "*", "labels"), ("data", "*", "label_names"),
    ("models", "*", "weights"), ("models", "*", "aligned"), ("attacks", "*", "images"), ("align", "checkpoint_steps"),
    ("variants", "*", "align", "checkpoint_steps"),
)  # fmt: skip
"""The places of keys that decide no result, or whose content has a hash that is compared instead; `*` is any name."""

_NOT_OF_A_TARGET = ("weights", "aligned", "family")

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
    remarks.extend(_remarks_on_code(experiments, attacks, targets))
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
    attacks = own.settings["attacks"].items()
    # Of images that were made elsewhere, the hash is compared, with the code of other attacks.
    return {name: {key: value for key, value in attack.items() if key != "images"} for name, attack in attacks}


def _targets(own: Finished) -> dict[str, Any]:
    """What decides the predictions of each target: its settings without places, and the hash of its weights."""
    return {name: [_networks(own, name), own.results["weights"].get(name)] for name in own.targets}


def _networks(own: Finished, name: str) -> list[Any]:
    """The settings of a model and, where it is defended, of the model within."""
    models, found = own.settings["models"], []
    while name in models and models[name] not in found:
        found.append(models[name])
        name = models[name].get("model", "")
    return [{key: value for key, value in one.items() if key not in _NOT_OF_A_TARGET} for one in found]


def _alike(experiments: Sequence[Finished], kind: str, of: Any, remarks: list[str]) -> list[str]:
    """The names of attacks or targets that are the same in all experiments. `remarks` gets what is left out."""

    def is_other_attack(name: str) -> bool:
        # Of a target's factory it is only said that its code differs: with equal weights it is likely the same network.
        return kind == "attack" and len(_codes(experiments, f"attack {name}")) > 1

    found = [of(own) for own in experiments]
    names = list(dict.fromkeys(name for own in found for name in own))
    alike, others, missing = [], [], []
    for name in names:
        if not all(name in own for own in found):
            missing.append(name)
        elif any(own[name] != found[0][name] for own in found) or is_other_attack(name):
            others.append(name)
        else:
            alike.append(name)
    if missing:
        remarks.append(f"Left out, because not every experiment has this {kind}: {', '.join(missing)}.")
    if others:
        remarks.append(f"Left out, because this {kind} is not the same in all: {', '.join(others)}.")
    return alike


def _codes(experiments: Sequence[Finished], name: str) -> set[str]:
    """The different codes that are known of an attack or a model."""
    return {code for own in experiments if (code := own.code.get(name)) is not None}


def _remarks_on_code(experiments: Sequence[Finished], attacks: Sequence[str], targets: Sequence[str]) -> Iterator[str]:
    """What has to be known of the code of attacks and targets that are compared, where it is not Witness's."""
    names = [*(f"attack {name}" for name in attacks), *(f"model {name}" for name in targets)]
    if other := [name for name in names if len(_codes(experiments, name)) > 1]:
        yield f"Of these, the code is not the same in all, so that they may be other networks: {', '.join(other)}."
    unknown = {name: [own.label for own in experiments if own.code.get(name, "") is None] for name in names}
    if without := list(dict.fromkeys(label for labels in unknown.values() for label in labels)):
        yield (
            "Of these, it is not known whether the code is the same in all, because the tables that record it are not "
            f"in the folder of {', '.join(without)}: {', '.join(name for name in names if unknown[name])}."
        )


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
    """The settings, weights, images, versions and code in which the experiments differ."""
    found = [dict(_described(own)) for own in experiments]
    keys = dict.fromkeys(key for own in found for key in own)
    values = {key: [own.get(key, "") for own in found] for key in keys}
    with_code = dict.fromkeys(name for own in experiments for name in own.code)
    codes = {
        f"code of {name}": [own.code.get(name) or "" for own in experiments]
        for name in with_code
        if len(_codes(experiments, name)) > 1  # where it is not known, there is nothing to compare
    }
    return {key: own for key, own in values.items() if len(set(own)) > 1} | codes


def _described(own: Finished) -> Iterator[tuple[str, str]]:
    yield from _dotted((), own.settings)
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


def _dotted(above: tuple[str, ...], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every setting below the keys `above`, by its dotted key, without those that are left out."""
    for key, value in settings.items():
        place = (*above, str(key))
        if any(_fits(place, left_out) for left_out in _LEFT_OUT):
            continue
        if isinstance(value, dict) and value:
            yield from _dotted(place, value)
        elif place[0] == "attacks" and key in ("eps", "step") and settings.get("norm") != "l2":
            yield ".".join(place), _in_levels(value)
        else:
            yield ".".join(place), _text(value)


def _fits(place: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(place) == len(pattern) and all(own in ("*", key) for key, own in zip(place, pattern, strict=True))


def _in_levels(value: Any) -> str:
    """A fraction of the pixel range as it is usually written, `4/255`; any other value as it is."""
    if not isinstance(value, float):
        return _text(value)
    levels = f"{255 * value:.6g}"
    return f"{levels}/255" if math.isclose(float(levels), 255 * value, rel_tol=1e-9) else _text(value)


def _text(value: Any) -> str:
    """The value as JSON; a text bare, unless it could be taken for another value, or for none."""
    text = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str) or not value:
        return text
    try:
        json.loads(value)
    except ValueError:
        return value
    return text
