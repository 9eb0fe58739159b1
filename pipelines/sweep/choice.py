"""The trials of a sweep as a table, and which of them is chosen."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from pipelines.storage.csv_table import to_csv
from pipelines.sweep.record import Record
from pipelines.sweep.settings import label_of
from pipelines.sweep.space import Space

_FIGURES = ("gain", "gain_low", "gain_high", "clean_accuracy", "clean_change")


class TrialRow(TypedDict):
    """A row of trials.csv. Rates and accuracies are in percent, gains and changes in points; None is an empty cell.

    Besides these, a row has a column for each searched key (its dotted name) and a `<target>/rate` for each validation
    target.
    """

    trial: str
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    clean_accuracy: float | None
    clean_change: float | None
    images: int | None
    pareto: int
    status: str
    steps: int | None
    seconds: float
    reason: str


def trial_rows(space: Space, records: Mapping[str, Record], targets: Sequence[str]) -> list[TrialRow]:
    """Returns a row for each trial: finished trials first, then those that did not end, each by falling gain.

    `images` is the number of validation images that were measured, which is smaller for a trial that was stopped on
    its way; gains and rates are over those of them that the source and a target classify correctly. `pareto` is 1
    where no other finished trial has more gain and no less clean accuracy, or more clean accuracy and no less gain.
    """
    pareto = pareto_set(records)
    rows = []
    for fingerprint, record in records.items():
        last: Mapping[str, Any] = record.last if record.status != "failed" else {}
        row: dict[str, object] = {"trial": fingerprint, **{key: label_of(record.settings[key]) for key in space.keys}}
        row |= {name: last.get(name) for name in _FIGURES}
        row |= {f"{target}/rate": last.get("rates", {}).get(target) for target in targets}
        row |= {"images": last.get("n"), "pareto": int(fingerprint in pareto), "status": record.status}
        row |= {"steps": last.get("step"), "seconds": record.seconds, "reason": " ".join(record.reason.split())}
        rows.append(cast(TrialRow, row))  # its columns are known only here
    return sorted(rows, key=lambda row: (row["status"] != "done", -(row["gain"] or 0), row["trial"]))


def pareto_set(records: Mapping[str, Record]) -> set[str]:
    """Returns the Pareto set of the finished trials.

    No other finished trial beats one of them in gain or in clean accuracy without being worse in the other.
    """
    ends = {
        fingerprint: (record.last["gain"], record.last["clean_accuracy"])
        for fingerprint, record in records.items()
        if record.status == "done"
    }

    def is_beaten(own: tuple[float, float]) -> bool:
        return any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in ends.values())

    return {fingerprint for fingerprint, own in ends.items() if not is_beaten(own)}


def chosen(records: Mapping[str, Record], max_clean_drop: float) -> str | None:
    """Returns the fingerprint of the finished trial with the largest gain among those that keep clean accuracy.

    Of equal gains, the one with the higher clean accuracy is chosen. None where no trial keeps it.
    """
    kept = {fingerprint: records[fingerprint] for fingerprint in keeping(records, max_clean_drop)}

    def merit(fingerprint: str) -> tuple[float, float, str]:
        return kept[fingerprint].last["gain"], kept[fingerprint].last["clean_accuracy"], fingerprint

    return max(kept, key=merit, default=None)


def keeping(records: Mapping[str, Record], max_clean_drop: float) -> list[str]:
    """The fingerprints of the finished trials that lose at most `max_clean_drop` points of clean accuracy."""
    return [
        fingerprint
        for fingerprint, record in records.items()
        if record.status == "done" and record.last["clean_change"] >= -max_clean_drop
    ]


def said_choice(row: Mapping[str, Any], keys: Sequence[str], finished: int) -> str:
    """The chosen settings of a row of trials.csv and their gain, in words; `finished` trials came to their end."""
    settings = ", ".join(f"{key} = {row[key]}" for key in keys)
    gain = f"{row['gain']:+.1f} points ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"
    verdict = "no detectable gain, " if row["gain_low"] <= 0 <= row["gain_high"] else ""
    biased = f", which is biased upwards, as the largest of {finished}" if finished > 1 else ""
    return f"{settings}; on validation images and targets: {verdict}{gain}{biased}"


def as_csv(rows: Sequence[TrialRow]) -> bytes:
    """Returns the content of trials.csv; numbers that are not whole have four decimals."""
    written = [
        {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    ]
    return to_csv(written, list(rows[0]) if rows else ["trial"])
