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
    points = _points(transfer)
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys(point.surrogate for point in points))
    for name, (colour, shape) in styles_of(names).items():
        own = [point for point in points if point.surrogate == name]
        for point in own:
            axes.plot([point.gradients] * 2, [point.low, point.high], color=colour, linewidth=1, alpha=0.5)
            place = (point.gradients, point.rate)
            axes.annotate(point.attack, place, xytext=(3, 3), textcoords="offset points", fontsize=6)
        axes.plot([p.gradients for p in own], [p.rate for p in own], shape, color=colour, label=name, markersize=5)
        front = pareto_front(own)
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


class Point(NamedTuple):
    """The mean rate of one surrogate and attack, in percent with its interval, and its gradients per image."""

    surrogate: str
    attack: str
    gradients: int
    rate: float
    low: float
    high: float


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points whose rate is above that of every point that costs no more, from the cheapest on."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.gradients, -point.rate)):
        if not front or point.rate > front[-1].rate:
            front.append(point)
    return front


def _points(transfer: Sequence[TransferRow]) -> list[Point]:
    """The rows over all targets that have a rate."""
    points = []
    for row in transfer:
        rate, low, high = row["rate"], row["rate_low"], row["rate_high"]
        if row["target"] == "(mean)" and rate is not None and low is not None and high is not None:
            points.append(Point(row["surrogate"], row["attack"], row["gradients"], rate, low, high))
    return points
