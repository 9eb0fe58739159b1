"""The figure of rates against their cost: which attack on which surrogate fools most for its gradients."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from align_core.attacks import AttackConfig, ForeignConfig
from pipelines.report.drawing import FAINT, hover, look, say_nothing, styles_of
from pipelines.report.means import kind_of
from pipelines.report.rows import TransferRow

_MOST_NAMES = 12
_MOST_TICKS = 6
"""Costs that stand on the axis themselves; of more, powers of ten do."""
_MOST_IN_PANEL = 8
"""Surrogates whose names a panel holds; those of more stand beside the figure."""


def pareto_figure(
    transfer: Sequence[TransferRow],
    attacks: Mapping[str, AttackConfig | ForeignConfig],
    groups: Sequence[str],
    title: str,
) -> Figure:
    """Draws the mean rate of every surrogate and attack, with its 95 % interval, over its gradients per image.

    A line joins each surrogate's Pareto front: the attacks that no cheaper attack on it beats. Attacks in different
    balls are not compared, nor are targeted attacks with others: they have panels of their own, one below the other,
    where targeted attacks are drawn with their targeted rate.

    Args:
        transfer: the rows of transfer.csv.
        attacks: the attacks of the experiment by name.
        groups: the experiment's groups of targets, which have a panel each, side by side; where there are none, the
            mean over all targets is drawn.
        title: stands above the figure.
    """
    balls = list(dict.fromkeys(ball_of(attack) for attack in attacks.values()))
    means = [f"(mean {group})" for group in groups] or ["(mean)"]
    width, height = (5.4, 4.2) if len(balls) * len(means) > 1 else (7.5, 5.0)
    styles = styles_of(list(dict.fromkeys(row["surrogate"] for row in transfer if row["attack"] in attacks)))
    with look():
        figure = Figure(figsize=(width * len(means), height * len(balls)), layout="constrained")
        panels = figure.subplots(len(balls), len(means), squeeze=False)
        for ball, across in zip(balls, panels, strict=True):
            for mean, panel in zip(means, across, strict=True):
                _draw(panel, points_of(transfer, attacks, ball, mean), styles)
                over = kind_of(mean)
                panel.set_title(f"{over}: {ball}" if over else ball, fontsize="small")
        figure.suptitle(title, fontsize="medium")
        if len(styles) > _MOST_IN_PANEL:
            handles, labels = panels[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, fontsize="small", loc="outside right upper")
    return figure


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


def named_points(points: Sequence[Point]) -> list[Point]:
    """The points of one surrogate whose attacks are named: all, or of many those on the front, so that none lies over
    another's name."""
    return list(points) if len(points) <= _MOST_NAMES else pareto_front(points)


def ball_of(attack: AttackConfig | ForeignConfig) -> str:
    """What has to agree before the rates of two attacks may be compared: the ball, and whether they are targeted."""
    ball = f"l2, eps {attack.eps:.4g}" if attack.norm == "l2" else f"l-infinity, eps {255 * attack.eps:.4g}/255"
    return f"{ball}, targeted rate" if attack.is_targeted else ball


def points_of(
    transfer: Sequence[TransferRow], attacks: Mapping[str, AttackConfig | ForeignConfig], ball: str, mean: str
) -> list[Point]:
    """The rows `mean` that have a rate, of attacks in one ball (see `ball_of`); of targeted ones the targeted rate.

    An attack that takes no gradient, as AutoAttack's Square does, has no place on an axis of gradients.
    """
    points = []
    for row in transfer:
        attack = attacks.get(row["attack"])  # None of images that were made elsewhere, whose cost is not known
        if attack is None or row["target"] != mean or ball_of(attack) != ball:
            continue
        rate, low, high = row["rate"], row["rate_low"], row["rate_high"]
        if attack.is_targeted:
            rate, low, high = row["targeted_rate"], row["targeted_low"], row["targeted_high"]
        if rate is not None and low is not None and high is not None and row["gradients"]:
            points.append(Point(row["surrogate"], row["attack"], row["gradients"], rate, low, high))
    return points


def _draw(panel: Axes, points: Sequence[Point], styles: Mapping[str, tuple[str, str]]) -> None:
    """Draws a panel: a point with its interval for each attack, a colour and a front for each surrogate.

    Which of them are named, `named_points` decides.
    """
    for name, (colour, shape) in styles.items():
        own = [point for point in points if point.surrogate == name]
        front = pareto_front(own)
        for point in own:
            panel.plot([point.gradients] * 2, [point.low, point.high], color=colour, linewidth=1, alpha=0.5)
        for point in named_points(own):
            place = (point.gradients, point.rate)
            panel.annotate(point.attack, place, xytext=(3, 3), textcoords="offset points", fontsize=6)
        (dots,) = panel.plot([p.gradients for p in own], [p.rate for p in own], shape, color=colour, label=name, ms=5)
        hover(
            dots,
            [
                f"{p.attack} on {name}: {p.rate:.1f} % ({p.low:.1f} to {p.high:.1f}), {p.gradients:,} gradients"
                for p in own
            ],
        )
        panel.step([p.gradients for p in front], [p.rate for p in front], color=colour, where="post", linewidth=1)
    panel.set_xscale("log")
    costs = sorted({point.gradients for point in points})
    if len(costs) <= _MOST_TICKS:
        panel.set_xticks(costs)
        panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("gradients per image", fontsize="small")
    panel.set_ylabel("transfer rate, percent (95 %)", fontsize="small")
    panel.grid(color=FAINT, lw=0.6)
    if points and len(styles) <= _MOST_IN_PANEL:
        panel.legend(fontsize="small", loc="lower right")  # "best" tries every place: seconds where points are many
    elif not points:
        say_nothing(panel, "no rate could be measured")
