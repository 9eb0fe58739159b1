"""The figures of reasons: what each surrogate's loss is like, and along a line through an attack."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.report.drawing import FAINT, styles_of
from pipelines.report.estimates import Estimate, draw_estimates
from pipelines.report.panels import as_rows, in_panels, longest
from pipelines.report.reason_rows import SHOWN, SLICES, ReasonRow, interval_of

_POINTS = {"clean": ("#0072B2", "o"), "random": ("#E69F00", "s"), "attacked": ("#D55E00", "^")}
"""Where a measure is taken -> its colour and shape, the same in all panels."""
_APART = 0.3
"""How far apart the first and the last surrogate are drawn at one factor of the perturbation, so that no interval hides
another. Factors are 0.5 apart."""


def geometry_figures(reasons: Sequence[ReasonRow], title: str) -> list[Figure]:
    """Draws these measures of every surrogate: a panel for each, the surrogates from top to bottom, a colour per point.

    Args:
        reasons: the rows of reasons.csv.
        title: stands above the panels.
    """
    names = list(dict.fromkeys(row["surrogate"] for row in reasons))
    own = {measure: _known(reasons, measure) for measure in SHOWN}
    there = {about.heading: own[measure] for measure, about in SHOWN.items() if own[measure]}
    units = {about.heading: about.unit for about in SHOWN.values()}

    def draw(panel: Axes, heading: str) -> None:
        for index, (point, style) in enumerate(_POINTS.items()):
            up = -0.26 + 0.26 * index
            estimates = [
                Estimate(f"{name}, {point}", names.index(name) + up, value, low, high)
                for (name, where), (value, low, high) in there[heading].items()
                if where == point
            ]
            draw_estimates(panel, estimates, point, *style)
        as_rows(panel, names)
        panel.set_title(heading, fontsize="medium")
        panel.set_xlabel(f"{units[heading]} (95 %)", fontsize="small")

    sizes = 3.6, 0.09 * longest(names), 0.8 + 0.42 * len(names)
    return in_panels(list(there), draw, *sizes, title=title, named=list(_POINTS))


def _known(reasons: Sequence[ReasonRow], measure: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(surrogate, point) -> a measure with its interval, where it has one."""
    return {
        (row["surrogate"], row["point"]): found
        for row in reasons
        if (row["measure"], row["counterpart"]) == (measure, SHOWN[measure].counterpart)
        and (found := interval_of(row)) is not None
    }


def slice_figures(reasons: Sequence[ReasonRow], title: str) -> list[Figure]:
    """Draws the loss of every surrogate along the perturbation of its attack and across it, with a line for each.

    Args:
        reasons: the rows of reasons.csv.
        title: stands above the panels.
    """
    headings = dict(zip(SLICES, ("along the perturbation", "in a random direction across it"), strict=True))
    rows = [row for row in reasons if row["measure"] in SLICES and interval_of(row) is not None]
    styles = styles_of(list(dict.fromkeys(row["surrogate"] for row in rows)))
    ends = [end for row in rows for end in interval_of(row) or ()]
    besides = {name: _APART * ((at + 0.5) / len(styles) - 0.5) for at, name in enumerate(styles)}
    room = 0.05 * (max(ends) - min(ends)) or 1.0 if ends else 0.0  # both panels have one scale

    def draw(panel: Axes, measure: str) -> None:
        for name, (colour, shape) in styles.items():
            own = [
                Estimate(f"{name}, at {row['point']}", float(row["point"]) + besides[name], *found)
                for row in rows
                if (row["surrogate"], row["measure"]) == (name, measure) and (found := interval_of(row)) is not None
            ]
            draw_estimates(panel, own, name, colour, shape, upright=True, joined=True, size=4, width=0.9)
        panel.grid(color=FAINT, lw=0.6)
        panel.set_axisbelow(True)
        panel.set_ylim(min(ends) - room, max(ends) + room)
        panel.tick_params(labelleft=True)
        panel.set_title(headings[measure], fontsize="medium")
        panel.set_xlabel("multiple of the perturbation", fontsize="small")
        panel.set_ylabel("loss, nats (95 %)", fontsize="small")

    return in_panels(SLICES if rows else (), draw, 5.2, 0.6, 3.8, title=title, named=list(styles))
