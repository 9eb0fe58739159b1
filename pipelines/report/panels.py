"""Figures that are made of panels, one per attack: as many side by side as fit, and as many below each other."""

import math
from collections.abc import Callable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.report.drawing import FAINT, GREY, look

WIDEST, TALLEST = 13.0, 16.0
"""Inches. Panels that do not fit side by side go below each other, and those that do not fit there into a further
figure."""


def in_panels(
    names: Sequence[str],
    draw: Callable[[Axes, str], None],
    width: float,
    labels: float,
    height: float,
    *,
    title: str,
    sharex: bool = False,
    named: Sequence[str] = (),
) -> list[Figure]:
    """Draws a panel for each name, in one figure or in as many as it takes.

    Args:
        names: of the panels.
        draw: draws what one of them holds.
        width: of a panel, in inches.
        labels: width of the labels to the left of the first panel, in inches.
        height: of a panel, in inches.
        title: stands above the panels.
        sharex: gives all panels of a figure the same horizontal axis.
        named: labels of what is drawn, for a legend below the panels; none for no legend.
    """
    across = max(1, min(len(names), int((WIDEST - labels) / width)))
    most = across * max(1, int(TALLEST / height))
    figures = []
    for start in range(0, len(names), most):
        part = names[start : start + most]
        down = math.ceil(len(part) / across)
        with look():
            size = (max(5.0, labels + across * width), 0.9 + down * height)
            figure = Figure(figsize=size, layout="constrained")
            grid = list(figure.subplots(down, across, sharex=sharex, squeeze=False).ravel())
            for index, panel in enumerate(grid):
                panel.tick_params(labelbottom=True, labelleft=index % across == 0)
            for panel in grid[len(part) :]:
                panel.remove()
            for panel, name in zip(grid, part, strict=False):
                draw(panel, name)
            figure.suptitle(title)
            if named:
                _draw_legend(figure, grid[: len(part)], named)
        figures.append(figure)
    return figures


def _draw_legend(figure: Figure, panels: Sequence[Axes], names: Sequence[str]) -> None:
    """Draws these names below the panels, in as many lines as their width needs."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        handles |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    lines = math.ceil(sum(0.6 + 0.08 * len(name) for name in names) / figure.get_figwidth())
    there = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in there], there,
        loc="outside lower center", ncols=max(1, math.ceil(len(names) / lines)), frameon=False, columnspacing=1.5,
    )  # fmt: skip


def as_rows(panel: Axes, labels: Sequence[str]) -> None:
    """Gives a panel a row for each label, from the top down, and a vertical line at a value of zero."""
    for y in range(len(labels)):
        panel.axhline(y - 0.5, color=FAINT, lw=0.6)
    panel.axvline(0, color=GREY, lw=1)
    panel.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    panel.set_yticks(range(len(labels)), labels)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color=FAINT, lw=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "left", "right"]].set_visible(False)


def longest(labels: Sequence[str]) -> int:
    """The number of letters in the longest line of these labels."""
    return max((len(line) for label in labels for line in label.splitlines()), default=0)
