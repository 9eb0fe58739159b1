"""Computes the rows of correlations.csv: which reasons go with the gain, across the surrogates of an experiment."""

from collections.abc import Mapping, Sequence

from align_core.multiplicity import holm
from align_core.reasons.correlation import rank_correlation
from pipelines.report.mean_gains import ALL_ATTACKS, Gains, gains_of
from pipelines.report.p_values import p_value
from pipelines.report.reason_rows import SLICES, CorrelationRow, ReasonRow
from pipelines.report.reason_tables import ALL_TARGETS, Key
from pipelines.report.rounding import figure
from pipelines.report.rows import TransferRow

KNOWN_BEFORE = ("clean", "random")
"""The points that are known before anything is crafted."""


def correlation_rows(
    reasons: Sequence[ReasonRow], transfer: Sequence[TransferRow], sources: Sequence[str], attacks: Sequence[str]
) -> list[CorrelationRow]:
    """The rows of correlations.csv.

    Args:
        reasons, transfer: the rows of these tables.
        sources: the surrogates that gains refer to. attacks: of the experiment.

    Changes are taken, and not values, so that surrogates of several sources can stand side by side; for those of one
    source the ranks of both are the same. Of a measure that compares with a single target, there is one row, with the
    gain on this target, over all attacks.
    """
    gains = gains_of(transfer, sources, attacks)
    together = [*attacks, ALL_ATTACKS] if len(attacks) > 1 else list(attacks)
    measured: dict[Key, dict[str, float | None]] = {}
    roles: dict[Key, str] = {}
    for row in reasons:
        if row["measure"] not in SLICES:
            key = Key(row["measure"], row["point"], row["counterpart"])
            is_source = row["surrogate"] in sources and row["value"] is not None
            measured.setdefault(key, {})[row["surrogate"]] = 0.0 if is_source else row["change"]
            roles[key] = row["role"]
    rows = []
    for key, changes in measured.items():
        is_target = roles[key] == "target" and key.counterpart != ALL_TARGETS
        target = key.counterpart if is_target else ALL_TARGETS
        for attack in together[-1:] if is_target else together:
            rows.append(_row(key, roles[key], changes, gains, attack, target))
    return _corrected(rows)


def _row(
    key: Key, role: str, changes: Mapping[str, float | None], gains: Gains, attack: str, target: str
) -> CorrelationRow:
    found = rank_correlation(list(changes.values()), [gains.get((name, attack, target)) for name in changes])
    return {
        "measure": key.measure,
        "point": key.point,
        "counterpart": key.counterpart,
        "role": role,
        "before_crafting": "yes" if key.point in KNOWN_BEFORE else "no",
        "attack": attack,
        "target": target,
        "n": found.n,
        "correlation": figure(found.value),
        "correlation_low": figure(found.low),
        "correlation_high": figure(found.high),
        "p_value": p_value(found.p_value),
        "p_holm": None,
    }


def _corrected(rows: list[CorrelationRow]) -> list[CorrelationRow]:
    """The rows with `p_holm`: Holm's correction over those of each attack and target that have a p-value."""
    families: dict[tuple[str, str], list[CorrelationRow]] = {}
    for row in rows:
        if row["p_value"] is not None:
            families.setdefault((row["attack"], row["target"]), []).append(row)
    for tested in families.values():
        for row, value in zip(tested, holm([float(row["p_value"] or 0) for row in tested]), strict=True):
            row["p_holm"] = p_value(value)
    return rows
