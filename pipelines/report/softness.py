"""The figure of soft labels: what the temperature makes of the witness's predictions, and what comes of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.report.drawing import styles_of
from pipelines.report.estimates import Estimate, draw_estimates
from pipelines.report.panels import in_panels
from pipelines.report.reason_rows import SoftLabelRow
from pipelines.report.temperatures import over_temperatures

_PANELS = {
    "entropy": ("entropy of the witness", "nats (95 %)"),
    "ece": ("calibration error of the witness", "percent (95 %)"),
    "agreement": ("agreement with the witness", "percent of images (95 %)"),
    "gain": ("mean gain", "points (95 %)"),
}
"""Column of soft_labels.csv -> what it is, and its unit. Gains have a panel for each attack."""


class Softness(NamedTuple):
    """One figure of a surrogate in soft_labels.csv.

    Attributes:
        panel: its heading.
        line: names those that differ in their temperature alone.
        label: the surrogate, and of several witnesses the one that is meant.
        temperature, value, low, high: of the row.
    """

    panel: str
    line: str
    label: str
    temperature: float
    value: float
    low: float
    high: float


def softness_of(rows: Sequence[SoftLabelRow], lines: Mapping[str, str]) -> list[Softness]:
    """Every figure of these rows once; none where all have one temperature, against which nothing can be drawn.

    Args:
        rows: of soft_labels.csv.
        lines: surrogate -> the line that joins it with those that differ in their temperature alone; others are dots.
    """
    if len({row["temperature"] for row in rows}) < 2:
        return []
    several = len({row["witness"] for row in rows}) > 1
    found: dict[Softness, None] = {}
    for row in rows:
        line = lines.get(row["surrogate"], row["surrogate"])
        of_witness = f" and {row['witness']}" if several else ""
        figures = {
            "entropy": (row["entropy"], row["entropy_low"], row["entropy_high"]),
            "ece": (row["ece"], row["ece_low"], row["ece_high"]),
            "agreement": (row["agreement"], row["agreement_low"], row["agreement_high"]),
            "gain": (row["gain"], row["gain_low"], row["gain_high"]),
        }
        for column, (value, low, high) in figures.items():
            if value is not None and low is not None and high is not None:
                heading = _PANELS[column][0] + (f", {row['attack']}" if column == "gain" else "")
                own = "" if column == "gain" else of_witness
                name = row["surrogate"] + own
                found[Softness(heading, line + own, name, row["temperature"], value, low, high)] = None
    return list(found)


def softness_figures(points: Sequence[Softness], title: str) -> list[Figure]:
    """Draws these figures over the temperature: a panel each, and a line for what is otherwise alike."""
    panels = list(dict.fromkeys(point.panel for point in sorted(points, key=lambda point: _place(point.panel))))
    styles = styles_of(list(dict.fromkeys(point.line for point in points)))
    temperatures = {point.temperature for point in points}

    def draw(panel: Axes, heading: str) -> None:
        for line, (colour, shape) in styles.items():
            own = [
                Estimate(f"{p.label}, temperature {p.temperature:g}", p.temperature, p.value, p.low, p.high)
                for p in points
                if (p.panel, p.line) == (heading, line)
            ]
            draw_estimates(panel, own, line, colour, shape, upright=True, joined=True, size=6)
        over_temperatures(panel, temperatures)
        panel.tick_params(labelleft=True)
        panel.set_title(heading, fontsize="medium")
        panel.set_ylabel(_unit(heading), fontsize="small")

    return in_panels(panels, draw, 4.1, 0.6, 3.2, title=title, named=list(styles) if len(styles) > 1 else [])


def _place(heading: str) -> int:
    return next(at for at, (start, _) in enumerate(_PANELS.values()) if heading.startswith(start))


def _unit(heading: str) -> str:
    return list(_PANELS.values())[_place(heading)][1]
