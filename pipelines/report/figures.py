"""The figures of transfer: gains with their intervals, and a heatmap of rates. Each may take several figures."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.experiment.surrogates import is_control
from pipelines.report.drawing import INK, PAPER, SHADE, say_nothing, styles_of
from pipelines.report.estimates import Estimate, draw_estimates
from pipelines.report.means import gain_of, is_mean, is_of_several, kind_of, success_of, targeted_among, without_repeats
from pipelines.report.panels import TALLEST, as_rows, in_panels, longest
from pipelines.report.rows import TransferRow

_MOST_NUMBERS = 2_000
"""Fields of a heatmap over all attacks: with more, they are small and have no numbers, which the tables have."""


def gain_figures(transfer: Sequence[TransferRow], title: str) -> list[Figure]:
    """Draws the gain of every surrogate over the source with its 95 % interval.

    There is a panel per attack, with the targets from top to bottom and a colour per surrogate. Where the targets are
    too many for one picture, only the means over groups of them are shown, and the title says so.

    Args:
        transfer: the rows of transfer.csv.
        title: stands above the panels.
    """
    rows = [row for row in without_repeats(transfer) if row["gain"] is not None]
    gaining = {row["surrogate"] for row in rows}
    every = styles_of(list(dict.fromkeys(row["surrogate"] for row in transfer)))
    styles = {name: style for name, style in every.items() if name in gaining}
    targets = _means_first(rows)
    band = 0.15 * len(styles) + 0.22
    if band * len(targets) > TALLEST:
        targets = [target for target in targets if is_mean(target)] or targets
        title += " (single targets: transfer.csv)"
    labels = [_label(target, rows) for target in targets]
    attacks, targeted = list(dict.fromkeys(row["attack"] for row in transfer)), targeted_among(transfer)
    sizes = 3.6, 0.09 * longest(labels), 0.6 + band * max(1, len(targets))

    def draw(panel: Axes, attack: str) -> None:
        _draw_bands(panel, targets, labels)
        _draw_gains(panel, [row for row in rows if row["attack"] == attack], targets, styles)
        panel.set_title(attack, fontsize="medium")
        what = "gain of the targeted rate" if attack in targeted else "gain"
        panel.set_xlabel(f"{what} over the source, points (95 %)", fontsize="small")
        if not rows:
            say_nothing(panel, "no gain could be measured")

    return in_panels(attacks, draw, *sizes, title=title, sharex=True, named=list(styles) if rows else [])


def _draw_gains(
    panel: Axes, rows: Sequence[TransferRow], targets: Sequence[str], styles: Mapping[str, tuple[str, str]]
) -> None:
    """Draws the gains under one attack: in the band of each target, a point with its interval per surrogate."""
    for index, (surrogate, (colour, shape)) in enumerate(styles.items()):
        own = []
        for row in rows:
            gain = gain_of(row)
            if row["surrogate"] == surrogate and row["target"] in targets and gain is not None:
                place = targets.index(row["target"]) - 0.38 + 0.76 * (index + 0.5) / len(styles)
                own.append(Estimate(f"{surrogate}, {row['target']}", place, *gain))
        width, size = (1.3, 5) if _is_control(surrogate) else (2.4, 7)
        draw_estimates(panel, own, surrogate, colour, shape, size=size, width=width)


def _draw_bands(panel: Axes, targets: Sequence[str], labels: Sequence[str]) -> None:
    """Draws a row per target, those of means shaded."""
    for y, target in enumerate(targets):
        if is_mean(target):
            panel.axhspan(y - 0.5, y + 0.5, color=SHADE, lw=0)
    as_rows(panel, labels)


def transfer_heatmaps(
    transfer: Sequence[TransferRow], title: str, white_box: Mapping[tuple[str, str, str], float | None] | None = None
) -> list[Figure]:
    """Draws the transfer rate of every surrogate on every target, in percent; of targeted attacks the targeted rate.

    There is a panel per attack, with the surrogates from top to bottom, the targets from left to right, and their mean
    over all targets first. Where the fields are too many for numbers, the panels have a scale of colours.

    Args:
        transfer: the rows of transfer.csv.
        title: stands above the panels.
        white_box: (attack, surrogate, target) -> the same rate of a surrogate that is the target itself, which is drawn
            in brackets and without a colour.
    """
    attacks, targeted = list(dict.fromkeys(row["attack"] for row in transfer)), targeted_among(transfer)
    surrogates = list(dict.fromkeys(row["surrogate"] for row in transfer))
    targets = targets_across(transfer, white_box or {})
    labels = [_label(target, []) for target in targets]
    rates = {(row["attack"], row["surrogate"], row["target"]): success_of(row) for row in transfer}
    has_numbers = len(attacks) * len(surrogates) * len(targets) <= _MOST_NUMBERS
    across, down = (0.55, 0.36) if has_numbers else (0.2, 0.2)
    height = 0.7 + down * len(surrogates) + 0.06 * longest(labels)

    def draw(panel: Axes, attack: str) -> None:
        _draw_rates(panel, [[rates.get((attack, s, t)) for t in targets] for s in surrogates], targets, has_numbers)
        for (own, surrogate, target), rate in (white_box or {}).items():
            if own == attack and rate is not None and surrogate in surrogates and target in targets and has_numbers:
                place = (targets.index(target) + 0.5, surrogates.index(surrogate) + 0.5)
                panel.text(*place, f"({rate:.0f})", ha="center", va="center", color=INK, fontsize="small")
        places = [[index + 0.5 for index in range(len(names))] for names in (targets, surrogates)]
        size = "medium" if has_numbers else "x-small"
        panel.set_xticks(places[0], labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
        panel.set_yticks(places[1], surrogates, fontsize=size)
        panel.invert_yaxis()
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(f"{attack}, targeted rate" if attack in targeted else attack, fontsize="medium")

    return in_panels(attacks, draw, 0.3 + across * len(targets), 0.09 * longest(surrogates), height, title=title)


def targets_across(
    transfer: Sequence[TransferRow], white_box: Mapping[tuple[str, str, str], float | None]
) -> list[str]:
    """The columns of the heatmap: the mean, then targets in the order of the rows, so that those that are sources too
    lie on a diagonal."""
    columns = [target for target in _means_first(transfer) if not target.startswith("(mean ")]
    means = [target for target in columns if is_mean(target)]
    return list(dict.fromkeys([*means, *(own for _, _, own in white_box if own in columns), *columns]))


def _draw_rates(
    panel: Axes, rates: Sequence[Sequence[float | None]], targets: Sequence[str], has_numbers: bool
) -> None:
    """Draws a coloured field per surrogate (down) and target (across), with its rate as a number if there is room."""
    numbers = [[math.nan if value is None else value for value in line] for line in rates]
    drawn = panel.pcolormesh(numbers, cmap="Blues", vmin=0, vmax=100, edgecolors=PAPER, lw=1.5 if has_numbers else 0.3)
    if not has_numbers:
        bar = panel.figure.colorbar(drawn, ax=panel, fraction=0.02, pad=0.01)
        bar.ax.tick_params(labelsize="x-small")
        return
    for y, line in enumerate(rates):
        for x, value in enumerate(line):
            if value is not None:
                colour, weight = "#ffffff" if value > 72 else "#000000", "bold" if targets[x] == "(mean)" else None
                panel.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", color=colour, weight=weight)


def _is_control(surrogate: str) -> bool:
    return is_control(surrogate) or surrogate == "aligned_ensemble" or surrogate.startswith("aligned_ensemble-")


def _means_first(rows: Sequence[TransferRow]) -> list[str]:
    """The targets, means first. Means over a single target are left out: they repeat its figures."""
    names = list(dict.fromkeys(row["target"] for row in rows))
    means = [name for name in names if is_mean(name) and is_of_several(name, rows)]
    return means + [name for name in names if not is_mean(name)]


def _label(target: str, rows: Sequence[TransferRow]) -> str:
    """The label of a target; with its relation to the source, if that is the same for all surrogates in `rows`."""
    if is_mean(target):
        kind = kind_of(target)
        return f"mean, {kind.replace('_', ' ')}" if kind else "mean"
    relations = {row["relation"] for row in rows if row["target"] == target}
    return f"{target}\n{relations.pop().replace('_', ' ')}" if len(relations) == 1 else target
