"""The figure of reasons against gains: do surrogates gain more whose loss, or whose predictions, changed more?"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.report.drawing import FAINT, GREY, styles_of
from pipelines.report.estimates import Estimate, draw_estimates
from pipelines.report.mean_gains import ALL_ATTACKS, gains_of
from pipelines.report.panels import in_panels
from pipelines.report.reason_rows import SHOWN, CorrelationRow, ReasonRow, over_all_attacks
from pipelines.report.rows import TransferRow

_ALL_TARGETS = "(mean)"


class AgainstGain(NamedTuple):
    """The change of one measure that the page shows, with its interval, and the mean gain of the same surrogate.

    The gain is in points, the mean over all targets and attacks.
    """

    measure: str
    surrogate: str
    gain: float
    change: float
    low: float
    high: float


def changes_and_gains(
    reasons: Sequence[ReasonRow], transfer: Sequence[TransferRow], sources: Sequence[str], attacks: Sequence[str]
) -> list[AgainstGain]:
    """The changes of these measures beside the gains; those of a source are 0.

    Args:
        reasons, transfer: the rows of these tables.
        sources: the surrogates that gains refer to. attacks: of the experiment.
    """
    gains = gains_of(transfer, sources, attacks)
    found = []
    for row in reasons:
        shown, gain = SHOWN.get(row["measure"]), gains.get((row["surrogate"], ALL_ATTACKS, _ALL_TARGETS))
        if shown is None or gain is None or (row["point"], row["counterpart"]) != (shown.point, shown.counterpart):
            continue
        change, low, high = row["change"], row["change_low"], row["change_high"]
        if row["surrogate"] in sources and row["value"] is not None:
            change, low, high = 0.0, 0.0, 0.0
        if change is not None and low is not None and high is not None:
            found.append(AgainstGain(row["measure"], row["surrogate"], gain, change, low, high))
    return found


def reason_gain_figures(
    points: Sequence[AgainstGain], correlations: Sequence[CorrelationRow], title: str
) -> list[Figure]:
    """Draws gains over these changes: a panel for each measure, with its rank correlation, and a dot per surrogate.

    Args:
        points: what is drawn.
        correlations: the rows of correlations.csv.
        title: stands above the panels.
    """
    measures = [measure for measure in SHOWN if any(point.measure == measure for point in points)]
    styles = styles_of(list(dict.fromkeys(point.surrogate for point in points)))

    def draw(panel: Axes, measure: str) -> None:
        for name, (colour, shape) in styles.items():
            own = [
                Estimate(f"{name}, gain {point.gain:+.1f}, change", point.gain, point.change, point.low, point.high)
                for point in points
                if (point.measure, point.surrogate) == (measure, name)
            ]
            draw_estimates(panel, own, name, colour, shape, size=6, width=1.2)
        for line in (panel.axhline, panel.axvline):
            line(0, color=GREY, lw=0.8)
        panel.grid(color=FAINT, lw=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelleft=True)
        panel.set_title(f"{SHOWN[measure].heading}\n{_correlation(correlations, measure)}", fontsize="small")
        panel.set_xlabel(f"change, {SHOWN[measure].unit} (95 %)", fontsize="small")
        panel.set_ylabel("mean gain, points", fontsize="small")

    return in_panels(measures, draw, 4.1, 0.5, 3.4, title=title, named=list(styles))


def _correlation(correlations: Sequence[CorrelationRow], measure: str) -> str:
    """The rank correlation of a measure with the mean gain, in words."""
    shown = SHOWN[measure]
    for row in over_all_attacks(correlations):
        is_own = (row["measure"], row["point"], row["counterpart"]) == (measure, shown.point, shown.counterpart)
        value, low, high = row["correlation"], row["correlation_low"], row["correlation_high"]
        if is_own and row["target"] == _ALL_TARGETS and value is not None:
            interval = "no interval" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"
            return f"rank correlation {value:+.2f} ({interval})"
    return "no correlation can be told"
