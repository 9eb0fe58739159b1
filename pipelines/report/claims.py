"""The four claims that are made of alignment, answered for each aligned surrogate by what was measured of it.

That alignment raises transfer, keeps clean accuracy, makes the model itself more robust, and its loss surface smoother.
An answer is yes or no only where the 95 % interval of the change against the source excludes zero: over several seeds,
that over images and seeds where the table has one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipelines.report.means import gain_of
from pipelines.report.reason_rows import ReasonRow
from pipelines.report.robustness_rows import ALL, MEAN, RobustnessRow
from pipelines.report.rounding import signed
from pipelines.report.sentences import of_targeted
from pipelines.report.tabled import Report

_SMOOTHNESS = {
    "gradient_l2": "the input gradient's length",
    "curvature": "the largest magnitude of an eigenvalue of the input Hessian",
    "linearity": "the error of local linearity",
}
"""Measures of reasons.csv that are smaller for a smoother loss, at clean images; linearity is that of random points."""


class Claim(NamedTuple):
    """A claim about one surrogate: what is asked, and the answers, a sentence each with its interval."""

    surrogate: str
    question: str
    answers: list[str]


class _Change(NamedTuple):
    """A change against the source, with its interval, and whether an increase is what the claim says."""

    what: str
    shown: str
    low: float | None
    high: float | None
    is_rise: bool

    def answer(self, beside: str = "") -> str:
        """Yes, no, or that nothing can be told; `beside` is what makes a yes worth little."""
        if self.low is None or self.high is None or self.low == self.high != 0:  # nothing varies, as with one image
            return f"{self.what}: not known, as there is no interval ({self.shown})"
        if self.low <= 0 <= self.high:
            return f"{self.what}: no detectable change ({self.shown})"
        is_yes = (self.low > 0) == self.is_rise
        caveat = f"; but {beside}" if is_yes and beside else ""
        return f"{self.what}: {'yes' if is_yes else 'no, the contrary'} ({self.shown}){caveat}"


def claims(report: Report) -> list[Claim]:
    """The claims about every surrogate that was aligned to a witness; none where there is no such surrogate."""
    aligned = dict.fromkeys(row["surrogate"] for row in report.surrogates if row["loss_before"] is not None)
    found = []
    for name in aligned:
        fell = _fell(report.robustness, name)
        answered = {
            "Does it transfer better than its source?": _transfer(report, name),
            "Is its clean accuracy kept?": _accuracy(report.robustness, name),
            "Is it more robust itself?": _robustness(report.robustness, name, fell),
            "Is its loss surface smoother?": _smoothness(report.reasons, name, fell),
        }
        found += [Claim(name, question, list(answers)) for question, answers in answered.items()]
    return found


def _transfer(report: Report, name: str) -> Iterator[str]:
    is_known = False
    for row in report.means():
        gain = gain_of(row)
        if row["surrogate"] == name and gain is not None:
            is_known = True
            yield _Change(f"under {row['attack']}{of_targeted(row)}", _points(*gain), *gain[1:], True).answer()
    if not is_known:
        yield "not known: there is no mean over all targets"


def _fell(rows: Sequence[RobustnessRow], name: str) -> str:
    """That clean accuracy fell beyond doubt: a network that predicts badly is easily called robust, or smooth."""
    for row in rows:
        if (row["surrogate"], row["kind"]) == (name, "clean") and row["change"] is not None:
            high = _limits(row)[1]
            return f"its clean accuracy fell by {-row['change']:.1f} points" if high is not None and high < 0 else ""
    return ""


def _accuracy(rows: Sequence[RobustnessRow], name: str) -> Iterator[str]:
    for row in rows:
        if (row["surrogate"], row["kind"]) == (name, "clean") and row["change"] is not None:
            low, high = _limits(row)
            shown = _points(row["change"], low, high)
            if low is None or high is None:
                yield f"not known, as there is no interval ({shown})"
            elif low > 0 or high < 0:
                yield f"{'it rose' if low > 0 else 'no, it fell'} ({shown})"
            else:
                yield f"no detectable change ({shown})"


def _robustness(rows: Sequence[RobustnessRow], name: str, fell: str) -> Iterator[str]:
    """Under each attack on itself, under all of them, and with corruptions, of which the mean stands for all."""
    own = [row for row in rows if row["surrogate"] == name and row["change"] is not None]
    has_mean = any((row["kind"], row["name"]) == ("corruption", MEAN) for row in own)
    for row in own:
        if row["kind"] == "clean" or (row["kind"] == "corruption" and has_mean and row["name"] != MEAN):
            continue
        what = f"attacked by {row['name']}" if row["kind"] == "attack" else f"with {row['name']}"
        what = {ALL: "under all attacks", MEAN: "with common corruptions, on average"}.get(row["name"], what)
        low, high = _limits(row)
        shown = f"{row['accuracy']:.1f} % right, {_points(row['change'], low, high)}"
        yield _Change(what, shown, low, high, True).answer(fell)


def _smoothness(rows: Sequence[ReasonRow], name: str, fell: str) -> Iterator[str]:
    is_measured = False
    for row in rows:
        if row["surrogate"] != name or row["change"] is None or row["value"] is None or row["counterpart"]:
            continue
        point = "random" if row["measure"] == "linearity" else "clean"
        if row["measure"] in _SMOOTHNESS and row["point"] == point:
            is_measured = True
            low, high = _limits(row)
            interval = "" if low is None or high is None else f" ({low:+.3g} to {high:+.3g})"
            shown = (
                f"{row['value'] - row['change']:.3g} to {row['value']:.3g}, a change of {row['change']:+.3g}{interval}"
            )
            if row["converged"] is not None and row["converged"] < 100:
                shown += f"; it converged on {row['converged']:.0f} % of the images"
            what = f"{_SMOOTHNESS[row['measure']]} at {point} points"
            yield _Change(what, shown, low, high, False).answer(fell)
    if not is_measured:
        yield "not measured: the section `reasons: {}` of the experiment file asks for it"


def _limits(row: RobustnessRow | ReasonRow) -> tuple[float | None, float | None]:
    """The interval that decides, as in the sentences about transfer."""
    if row["seeds"] > 1:
        return row["change_both_low"], row["change_both_high"]
    return row["change_low"], row["change_high"]


def _points(value: float | None, low: float | None, high: float | None) -> str:
    interval = "" if low is None or high is None else f", {signed(low)} to {signed(high)}"
    return f"{signed(value or 0.0)} points{interval}"
