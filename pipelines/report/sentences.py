"""What the tables show of each surrogate, in words that say no more than the intervals bear."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.experiment.surrogates import is_control
from pipelines.report.rows import ContrastRow, MeanRow, SurrogateRow

if TYPE_CHECKING:
    from pipelines.report.page import Report

_BROKEN_BY = -2.0
"""Points of clean accuracy: a control that lost more than that, beyond doubt, is no longer like the source."""


def verdicts(report: "Report") -> list[str]:
    """Says of each surrogate and attack whether it transfers better than the source, and what that is worth.

    By the mean over all targets: against the source; against the controls, beside which alone an effect counts; at what
    cost in clean accuracy; whether it agrees less with its witnesses than before; and at what budget. One is called
    better or worse than another only where the 95 % interval of the difference excludes zero. Surrogates without a
    gain, such as the source itself, are left out.
    """
    contrasts: dict[tuple[str, str], list[ContrastRow]] = {}
    for row in report.contrasts:
        if row["target"] == "(mean)" and is_control(row["baseline"]):
            contrasts.setdefault((row["surrogate"], row["attack"]), []).append(row)
    about = {row["surrogate"]: row for row in report.surrogates}
    return [
        _sentence(row, contrasts.get((row["surrogate"], row["attack"]), []), about)
        for row in report.means()
        if row["gain"] is not None
    ]


def broken_controls(surrogates: Sequence[SurrogateRow]) -> dict[str, str]:
    """The control `label_only`, where it lost clean accuracy beyond doubt, with what has to be said of it.

    Such a control differs from the source in more than further training, so that to be better than it shows little.
    """
    found = {}
    for row in (own for own in surrogates if own["surrogate"] == "label_only"):
        change, high = row["clean_change"], row["clean_change_high"]
        if change is not None and high is not None and high < 0 and change <= _BROKEN_BY:
            found["label_only"] = f"label_only lost {-change:.1f} points of clean accuracy and is a broken control"
    return found


def _sentence(row: MeanRow, contrasts: Sequence[ContrastRow], about: Mapping[str, SurrogateRow]) -> str:
    gain, low, high = row["gain"], row["gain_low"], row["gain_high"]
    against = f"{_compared(low, high, 'transfers ', 'shows ')} the source: {_interval(gain, low, high)}"
    parts = [against, *_beside_controls(contrasts, broken_controls(list(about.values())))]
    own = about.get(row["surrogate"])
    if own is not None and own["clean_change"] is not None:
        change = _interval(own["clean_change"], own["clean_change_low"], own["clean_change_high"])
        parts.append(f"clean accuracy {change}")
    if own is not None and own["loss_before"] is not None and (own["agreement_change"] or 0) < 0:
        parts.append(f"it agrees less with its witnesses than the source does: {own['agreement_change']:+.1f} points")
    if own is not None and own["forward_passes"] is not None and own["backward_passes"] is not None:
        parts.append(f"made in {own['forward_passes'] + own['backward_passes']:,} passes")
    return f"{row['surrogate']} under {row['attack']}: " + "; ".join(parts)


def _beside_controls(contrasts: Sequence[ContrastRow], broken: Mapping[str, str]) -> list[str]:
    """What comes of comparing a surrogate with the controls."""
    found = []
    for row in contrasts:
        gain, low, high = row["gain"], row["gain_low"], row["gain_high"]
        if gain is not None:
            found.append(f"{_compared(low, high, '', '')} {row['baseline']}: {_interval(gain, low, high)}")
    return found + [broken[row["baseline"]] for row in contrasts if row["baseline"] in broken]


def _compared(low: float | None, high: float | None, does: str, shows: str) -> str:
    assert low is not None and high is not None
    if low > 0:
        return f"{does}better than"
    return f"{does}worse than" if high < 0 else f"{shows}no detectable difference from"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
