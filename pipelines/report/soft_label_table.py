"""Computes the rows of soft_labels.csv: what aligned surrogates were taught, at which temperature, and their gain."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from align_core.reasons.calibration import calibration_error
from align_core.reasons.over_images import limits, means_over_images
from align_core.transfer import FEW, Interval
from pipelines.experiment.surrogates import Surrogate, series_of
from pipelines.report.reason_rows import ReasonRow, SoftLabelRow
from pipelines.report.reason_tables import ALL_TARGETS, ReasonTables
from pipelines.report.rounding import significant
from pipelines.report.rows import TransferRow
from pipelines.stages.measurings import SOFT, temperature_of


class _Softness(NamedTuple):
    entropy: Interval
    error: Interval


def soft_label_rows(
    tables: ReasonTables, reasons: Sequence[ReasonRow], transfer: Sequence[TransferRow]
) -> list[SoftLabelRow]:
    """The rows of soft_labels.csv. Of several seeds, figures and limits are means over the seeds that the witness has.

    Args:
        tables: the reasons of single images.
        reasons, transfer: the rows of these tables.
    """
    blueprint = tables.blueprint
    series: dict[str, list[Surrogate]] = {}
    for surrogate in blueprint.surrogates:
        if temperature_of(surrogate) is not None:
            series.setdefault(surrogate.series, []).append(surrogate)
    agreements = {
        (row["surrogate"], row["counterpart"]): row
        for row in reasons
        if (row["measure"], row["point"]) == ("agreement", "clean")
    }
    gains = [row for row in transfer if row["target"] == ALL_TARGETS]
    rows = []
    for name, own in series.items():
        for at, witness in enumerate(map(series_of, own[0].witnesses)):
            pairs = dict.fromkeys((surrogate.witnesses[at], temperature_of(surrogate)) for surrogate in own)
            found = [_softness(tables, *pair) for pair in pairs if (SOFT, pair[0]) in tables.tables]
            if len(found) < len(pairs):
                continue
            agreement = agreements.get((name, witness))
            softness = _Softness(*(_mean([getattr(one, side) for one in found]) for side in _Softness._fields))
            for row in (row for row in gains if row["surrogate"] == name):
                temperature = float(temperature_of(own[0]) or 0)
                rows.append(
                    _row(witness, temperature, softness, agreement, row, len(tables.blueprint.sample.positions))
                )
    return rows


def _softness(tables: ReasonTables, witness: str, temperature: float | None) -> _Softness:
    """Entropy and calibration error of a witness at a temperature, with their intervals over images."""
    columns = tables.read(tables.tables[SOFT, witness])
    means = means_over_images(columns[f"entropy/{temperature:g}"][:, None], tables.counts)
    (low,), (high,) = limits(means.draws_RM)
    hit_N = columns["hit/1"].astype(np.bool_)
    error = calibration_error(columns[f"confidence/{temperature:g}"], hit_N, tables.counts)
    entropy = Interval(float(means.value_M[0]), float(low), float(high))
    if len(hit_N) < FEW:
        return _Softness(Interval(entropy.value, math.nan, math.nan), Interval(error.value, math.nan, math.nan))
    return _Softness(entropy, error)


def _mean(intervals: Sequence[Interval]) -> Interval:
    """The mean of each value and of each limit."""
    return Interval(*(float(np.mean([getattr(own, side) for own in intervals])) for side in ("value", "low", "high")))


def _row(
    witness: str, temperature: float, softness: _Softness, agreement: ReasonRow | None, gain: TransferRow, n: int
) -> SoftLabelRow:
    return {
        "surrogate": gain["surrogate"],
        "witness": witness,
        "temperature": temperature,
        "n": n,
        "seeds": gain["seeds"],
        "entropy": significant(softness.entropy.value),
        "entropy_low": significant(softness.entropy.low),
        "entropy_high": significant(softness.entropy.high),
        "ece": significant(softness.error.value),
        "ece_low": significant(softness.error.low),
        "ece_high": significant(softness.error.high),
        "agreement": None if agreement is None else agreement["value"],
        "agreement_low": None if agreement is None else agreement["value_low"],
        "agreement_high": None if agreement is None else agreement["value_high"],
        "attack": gain["attack"],
        "gain": gain["gain"],
        "gain_low": gain["gain_low"],
        "gain_high": gain["gain_high"],
    }
