"""The figure of rates against their cost: which attack on which surrogate fools most for its gradients."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.report.figures import as_png, styles_of
from pipelines.report.rows import TransferRow


def pareto_figure(transfer: Sequence[TransferRow], title: str) -> bytes:
    """Draws the mean rate of every surrogate and attack, with its 95 % interval, over its gradients per image.

    A line joins each surrogate's Pareto front: the attacks that no cheaper attack on it beats. Returns a PNG file.

    Args:
        transfer: the rows of transfer.csv, of which those over all targets are drawn.
        title: stands above the figure.
    """
    rows = [row for row in transfer if row["target"] == "(mean)" and row["rate"] is not None and row["gradients"]]
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys(row["surrogate"] for row in rows))
    for name, (colour, shape) in styles_of(names).items():
        own = [_point(row) for row in rows if row["surrogate"] == name]
        for point in own:
            axes.plot([point.gradients] * 2, [point.low, point.high], color=colour, linewidth=1, alpha=0.5)
            place = (point.gradients, point.rate)
            axes.annotate(point.attack, place, xytext=(3, 3), textcoords="offset points", fontsize=6)
        axes.plot([p.gradients for p in own], [p.rate for p in own], shape, color=colour, label=name, markersize=5)
        front = [_point(row) for row in pareto_front([row for row in rows if row["surrogate"] == name])]
        axes.step([p.gradients for p in front], [p.rate for p in front], color=colour, where="post", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("gradients per image")
    axes.set_ylabel("transfer rate, mean over the targets, percent (95 %)")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize="small")
    else:
        axes.text(0.5, 0.5, "no rate could be measured", ha="center", va="center", transform=axes.transAxes)
    return as_png(figure)


def pareto_front(rows: Sequence[TransferRow]) -> list[TransferRow]:
    """The rows whose rate is above that of every row that costs no more, from the cheapest on."""
    front: list[TransferRow] = []
    for row in sorted(rows, key=lambda row: (row["gradients"] or 0, -(row["rate"] or 0.0))):
        if not front or (row["rate"] or 0.0) > (front[-1]["rate"] or 0.0):
            front.append(row)
    return front


class _Point(NamedTuple):
    attack: str
    gradients: int
    rate: float
    low: float
    high: float


def _point(row: TransferRow) -> _Point:
    """A row that has a rate and a cost, as what is drawn of it."""
    gradients, rate, low, high = row["gradients"], row["rate"], row["rate_low"], row["rate_high"]
    assert gradients is not None and rate is not None and low is not None and high is not None
    return _Point(row["attack"], gradients, rate, low, high)
