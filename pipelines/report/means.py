"""The rows of transfer.csv that are means over groups of targets: which there are, and which repeat another."""

from collections.abc import Sequence

from pipelines.experiment.names import RELATIONS
from pipelines.report.rows import ContrastRow, MeanRow, TransferRow


def gain_of(row: TransferRow | MeanRow | ContrastRow) -> tuple[float, float, float] | None:
    """A gain with the interval that decides: over images and seeds where there are several, else over images."""
    several = row["seeds"] > 1
    low, high = (row["gain_both_low"], row["gain_both_high"]) if several else (row["gain_low"], row["gain_high"])
    return None if row["gain"] is None or low is None or high is None else (row["gain"], low, high)


def success_of(row: TransferRow | MeanRow) -> float | None:
    """How often an attack did what it is for, in percent: the targeted rate of a targeted attack, else the rate."""
    return row["rate"] if row["targeted_rate"] is None else row["targeted_rate"]


def targeted_among(rows: Sequence[TransferRow]) -> set[str]:
    """The targeted attacks of these rows."""
    return {row["attack"] for row in rows if row["targeted_rate"] is not None}


def is_mean(target: str) -> bool:
    """Whether a row with this target is a mean; no model has brackets in its name."""
    return target.startswith("(mean")


def kind_of(target: str) -> str:
    """The relation or group that a mean is over; "" for the mean over all targets."""
    return target.strip("()").removeprefix("mean").strip()


def without_repeats(rows: Sequence[TransferRow]) -> list[TransferRow]:
    """The rows without the means over targets of one relation that all targets have: they repeat the mean over all."""
    repeated = _repeated(rows)
    return [row for row in rows if (row["surrogate"], row["target"]) not in repeated]


def _repeated(rows: Sequence[TransferRow]) -> set[tuple[str, str]]:
    relations: dict[str, set[str]] = {}
    for row in rows:
        if not is_mean(row["target"]):
            relations.setdefault(row["surrogate"], set()).add(row["relation"])
    return {(name, f"(mean {kind})") for name, own in relations.items() if len(own) == 1 for kind in own}


def is_of_several(target: str, rows: Sequence[TransferRow]) -> bool:
    """Whether a mean is over more than one target of any surrogate, so that it does not repeat that target's figures.

    The members of a group of the experiment are not known here: its mean counts as one over several.
    """
    kind, members = kind_of(target), dict[str, set[str]]()
    if kind and kind not in RELATIONS:
        return True
    for row in rows:
        if not is_mean(row["target"]) and kind in ("", row["relation"]):
            members.setdefault(row["surrogate"], set()).add(row["target"])
    return any(len(targets) > 1 for targets in members.values())
