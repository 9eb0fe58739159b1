"""Gains of every surrogate, as reasons are set beside them: also as a mean over all attacks."""

from collections.abc import Mapping, Sequence

from pipelines.report.rows import TransferRow

ALL_ATTACKS = "(mean)"

Gains = Mapping[tuple[str, str, str], float | None]
"""(surrogate, attack, target) -> its gain over its original source; 0 for that source itself."""


def gains_of(transfer: Sequence[TransferRow], sources: Sequence[str], attacks: Sequence[str]) -> Gains:
    """The gains of every surrogate; of the attack `(mean)`, the mean over all attacks, where it has one under each."""
    found: dict[tuple[str, str, str], float | None] = {}
    for row in transfer:
        is_source = row["surrogate"] in sources and row["rate"] is not None
        found[row["surrogate"], row["attack"], row["target"]] = 0.0 if is_source else row["gain"]
    for surrogate, target in dict.fromkeys((row["surrogate"], row["target"]) for row in transfer):
        own = [found.get((surrogate, attack, target)) for attack in attacks]
        known = [gain for gain in own if gain is not None]
        found[surrogate, ALL_ATTACKS, target] = sum(known) / len(known) if len(known) == len(attacks) else None
    return found
