"""Estimates with their intervals, as the panels of several figures show them: a dot, a bar, and a text on hovering."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from pipelines.report.drawing import PAPER, hover


class Estimate(NamedTuple):
    """An estimate as it is drawn.

    Attributes:
        name: what it is of; the text on hovering begins with it.
        place: where it stands on the axis that does not show values.
        value: the estimate.
        low, high: the ends of its interval.
    """

    name: str
    place: float
    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """What is shown on hovering."""
        return f"{self.name}: {self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def draw_estimates(
    panel: Axes,
    estimates: Sequence[Estimate],
    label: str,
    colour: str,
    shape: str,
    *,
    upright: bool = False,
    joined: bool = False,
    size: float = 5,
    width: float = 1.6,
) -> None:
    """Draws estimates of one kind.

    Args:
        panel: where.
        estimates: what.
        label: of the kind, for the legend.
        colour, shape: of the dots, as matplotlib has them.
        upright: values go upwards, and not to the right.
        joined: a line joins the dots, in the order of their places.
        size: of the dots, and `width` that of the bars, in points.
    """
    own = sorted(estimates, key=lambda estimate: estimate.place)
    places, values = [one.place for one in own], [one.value for one in own]
    # A percentile interval may lie beside its own estimate, and a bar must not have a negative length.
    errors = [[max(0.0, one.value - one.low) for one in own], [max(0.0, one.high - one.value) for one in own]]
    x, y = (places, values) if upright else (values, places)
    bars = panel.errorbar(
        x, y, xerr=None if upright else errors, yerr=errors if upright else None,
        fmt=f"{shape}-" if joined else shape, color=colour, label=label,
        ms=size, mec=PAPER, mew=0.5, elinewidth=width, lw=1.2,
    )  # fmt: skip
    hover(bars.lines[0], [one.text for one in own])
