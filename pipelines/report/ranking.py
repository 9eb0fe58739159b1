"""Which surrogate gains most under each attack: the question that an experiment with several of them asks."""

from collections.abc import Sequence

from pipelines.experiment.surrogates import is_control
from pipelines.report.means import gain_of
from pipelines.report.rows import ContrastRow, MeanRow
from pipelines.report.sentences import clean_change_of, of_targeted, said_gain
from pipelines.report.tabled import Report

_NAMED = 3

CAVEAT = (
    "These are means over all targets. The highest of several gains is biased upwards: measure it on other images "
    "before you build on it."
)
"""What has to be said beside a ranking."""


def ranking(report: Report) -> list[str]:
    """A sentence per attack: the surrogates that gain most, and the best control; none where there is one surrogate.

    By the mean over all targets. Of those that gain, the first is said to be better than the second only where
    contrasts.csv has the pair and its interval excludes zero. In a matrix, means are over different targets, and
    nothing is ranked.
    """
    own = [row for row in report.means() if not report.is_made_elsewhere(row["surrogate"])]
    if len({row["surrogate"] for row in own if row["gain"] is None and row["rate"] is not None}) != 1:
        return []
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in report.means()):
        rows = [row for row in report.means() if row["attack"] == attack and gain_of(row) is not None]
        ranked = sorted((row for row in rows if not is_control(row["surrogate"])), key=lambda row: -(row["gain"] or 0))
        controls = sorted((row for row in rows if is_control(row["surrogate"])), key=lambda row: -(row["gain"] or 0))
        if len(ranked) > 1:
            lines.append(_sentence(report, attack, ranked, controls))
    return lines


def _sentence(report: Report, attack: str, ranked: Sequence[MeanRow], controls: Sequence[MeanRow]) -> str:
    gains = any(gain[1] > 0 for row in ranked if (gain := gain_of(row)) is not None)
    named = [row for row in ranked[:_NAMED] if not gains or (row["gain"] or 0) > 0]
    shown = ", ".join(f"{row['surrogate']} {said_gain(row)}{_clean(report, row)}" for row in named)
    what = "the highest gains are" if len(named) > 1 else "the only gain is"
    parts = [f"controls aside, {what if gains else 'none gains beyond doubt, and the highest are'} {shown}"]
    if gains and len(named) > 1:
        parts.append(_lead(report, attack, named))
    if controls:
        parts.append(f"the best control is {controls[0]['surrogate']} {said_gain(controls[0])}")
    return f"under {attack}{of_targeted(ranked[0])}: " + "; ".join(parts)


def _clean(report: Report, row: MeanRow) -> str:
    """What a surrogate costs in clean accuracy, where it fell beyond doubt."""
    for own in report.surrogates:
        change = clean_change_of(own) if own["surrogate"] == row["surrogate"] else None
        if change is not None and change[2] < 0:
            return f" at {change[0]:+.1f} of clean accuracy"
    return ""


def _lead(report: Report, attack: str, ranked: Sequence[MeanRow]) -> str:
    """Whether the first is better than the second."""
    first, second = ranked[0]["surrogate"], ranked[1]["surrogate"]
    for row in report.contrasts:
        if (row["attack"], row["target"]) == (attack, "(mean)") and {row["surrogate"], row["baseline"]} == {
            first,
            second,
        }:
            low, high = _towards(row, first)
            if low > 0:
                return f"{first} is better than {second} ({low:+.1f} to {high:+.1f})"
            return f"between {first} and {second} there is no detectable difference ({low:+.1f} to {high:+.1f})"
    return f"that {first} is better than {second} is not tested here (contrasts: [[{first}, {second}]] asks for it)"


def _towards(row: ContrastRow, first: str) -> tuple[float, float]:
    """The interval of the first's gain over the second."""
    gain = gain_of(row)
    if gain is None:
        return float("-inf"), float("inf")
    return gain[1:] if row["surrogate"] == first else (0.0 - gain[2], 0.0 - gain[1])
