"""The figures of the report, as PNG files: gains with their intervals, and a heatmap of transfer rates."""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.experiment.names import RELATIONS
from pipelines.experiment.surrogates import is_control
from pipelines.report.rows import TransferRow

# Inches. Panels that do not fit side by side go below each other; if the targets do not fit, only means are shown.
_WIDEST, _TALLEST = 13.0, 16.0
# A surrogate looks the same in every report. The colours are those of Okabe and Ito, which colour-blind readers can
# tell apart; the shapes differ as well.
_STYLES = {
    "aligned": ("#0072B2", "o"),
    "label_only": ("#E69F00", "s"),
    "witness": ("#009E73", "D"),
    "ensemble": ("#CC79A7", "^"),
    "aligned_ensemble": ("#56B4E9", "v"),
}
_FURTHER_COLOURS = ("#D55E00", "#444444", "#7B4FA3", "#8C6D1F", "#B2182B")
_FURTHER_SHAPES = ("P", "X", "<", ">", "p", "h", "*")


def gain_figure(transfer: Sequence[TransferRow], title: str) -> bytes:
    """Draws the gain of every surrogate over the source with its 95 % interval; returns a PNG file.

    There is a panel per attack, with the targets from top to bottom and a colour per surrogate. Where the targets are
    too many for one picture, only the means over groups of them are shown, and the title says so.

    Args:
        transfer: the rows of transfer.csv.
        title: stands above the panels.
    """
    rows = [row for row in transfer if row["gain"] is not None]
    attacks = list(dict.fromkeys(row["attack"] for row in transfer))
    styles = styles_of(list(dict.fromkeys(row["surrogate"] for row in rows)))
    targets = _means_first(rows)
    band = 0.15 * len(styles) + 0.22
    if band * len(targets) > _TALLEST:
        targets = [target for target in targets if target.startswith("(mean")] or targets
        title += " (single targets: transfer.csv)"
    labels = [_label(target, rows) for target in targets]
    figure, panels = _panels(attacks, 3.6, 0.09 * _longest(labels), 0.6 + band * max(1, len(targets)), sharex=True)
    for panel, attack in zip(panels, attacks, strict=True):
        _draw_bands(panel, targets, labels)
        _draw_gains(panel, [row for row in rows if row["attack"] == attack], targets, styles)
        panel.set_title(attack, fontsize="medium")
        panel.set_xlabel("gain over the source, points (95 %)", fontsize="small")
        if not rows:
            panel.text(0.5, 0.5, "no gain could be measured", ha="center", va="center", transform=panel.transAxes)
    figure.suptitle(title)
    if rows:
        _draw_legend(figure, panels[0], list(styles))
    return as_png(figure)


def _draw_gains(
    panel: Axes, rows: Sequence[TransferRow], targets: Sequence[str], styles: Mapping[str, tuple[str, str]]
) -> None:
    """Draws the gains under one attack: in the band of each target, a point with its interval per surrogate."""
    for index, (surrogate, (colour, shape)) in enumerate(styles.items()):
        heights, gains, below, above = [], [], [], []
        for row in rows:
            gain, low, high = row["gain"], row["gain_low"], row["gain_high"]
            if row["surrogate"] != surrogate or row["target"] not in targets:
                continue
            assert gain is not None and low is not None and high is not None
            heights.append(targets.index(row["target"]) - 0.38 + 0.76 * (index + 0.5) / len(styles))
            gains.append(gain)
            # A percentile interval may lie beside its own estimate, and a bar must not have a negative length.
            below.append(max(0.0, gain - low))
            above.append(max(0.0, high - gain))
        line, dot = (1.3, 5) if _is_control(surrogate) else (2.4, 7)
        panel.errorbar(
            gains, heights, xerr=[below, above], label=surrogate,
            fmt=shape, color=colour, ms=dot, mec="white", mew=0.5, elinewidth=line,
        )  # fmt: skip


def _draw_legend(figure: Figure, panel: Axes, surrogates: Sequence[str]) -> None:
    """Draws the names of the surrogates below the panels, in as many lines as their width needs."""
    lines = math.ceil(sum(0.6 + 0.08 * len(name) for name in surrogates) / figure.get_figwidth())
    columns = math.ceil(len(surrogates) / lines)
    handles = panel.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1.5)


def _draw_bands(panel: Axes, targets: Sequence[str], labels: Sequence[str]) -> None:
    """Draws a band per target, from the top down, those of means shaded, and a vertical line at a gain of zero."""
    for y, target in enumerate(targets):
        if target.startswith("(mean"):
            panel.axhspan(y - 0.5, y + 0.5, color="#EEF1F5", lw=0)
        panel.axhline(y - 0.5, color="0.85", lw=0.6)
    panel.axvline(0, color="0.25", lw=1)
    panel.set_ylim(max(1, len(targets)) - 0.5, -0.5)
    panel.set_yticks(range(len(targets)), labels)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="0.9", lw=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "left", "right"]].set_visible(False)


def transfer_heatmap(
    transfer: Sequence[TransferRow], title: str, white_box: Mapping[tuple[str, str, str], float | None] | None = None
) -> bytes:
    """Draws the transfer rate of every surrogate on every target, in percent; returns a PNG file.

    There is a panel per attack, with the surrogates from top to bottom, the targets from left to right, and their mean
    over all targets first.

    Args:
        transfer: the rows of transfer.csv.
        title: stands above the panels.
        white_box: (attack, surrogate, target) -> the rate of a surrogate that is the target itself, which is drawn in
            brackets and without a colour.
    """
    attacks = list(dict.fromkeys(row["attack"] for row in transfer))
    surrogates = list(dict.fromkeys(row["surrogate"] for row in transfer))
    targets = targets_across(transfer, white_box or {})
    labels = [_label(target, []) for target in targets]
    rates = {(row["attack"], row["surrogate"], row["target"]): row["rate"] for row in transfer}
    height = 0.7 + 0.36 * len(surrogates) + 0.06 * _longest(labels)
    figure, panels = _panels(attacks, 0.3 + 0.55 * len(targets), 0.09 * _longest(surrogates), height)
    for panel, attack in zip(panels, attacks, strict=True):
        _draw_rates(panel, [[rates.get((attack, s, t)) for t in targets] for s in surrogates], targets)
        for (own, surrogate, target), rate in (white_box or {}).items():
            if own == attack and rate is not None and surrogate in surrogates and target in targets:
                place = (targets.index(target) + 0.5, surrogates.index(surrogate) + 0.5)
                panel.text(*place, f"({rate:.0f})", ha="center", va="center", color="0.45", fontsize="small")
        across, down = ([index + 0.5 for index in range(len(names))] for names in (targets, surrogates))
        panel.set_xticks(across, labels, rotation=40, ha="right", rotation_mode="anchor")
        panel.set_yticks(down, surrogates)
        panel.invert_yaxis()
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(attack, fontsize="medium")
    figure.suptitle(title)
    return as_png(figure)


def targets_across(
    transfer: Sequence[TransferRow], white_box: Mapping[tuple[str, str, str], float | None]
) -> list[str]:
    """The columns of the heatmap: the mean, then targets in the order of the rows, so that those that are sources too
    lie on a diagonal."""
    columns = [target for target in _means_first(transfer) if not target.startswith("(mean ")]
    means = [target for target in columns if target.startswith("(mean")]
    return list(dict.fromkeys([*means, *(own for _, _, own in white_box if own in columns), *columns]))


def _draw_rates(panel: Axes, rates: Sequence[Sequence[float | None]], targets: Sequence[str]) -> None:
    """Draws a coloured field per surrogate (down) and target (across), with its rate as a number."""
    numbers = [[math.nan if value is None else value for value in line] for line in rates]
    panel.pcolormesh(numbers, cmap="Blues", vmin=0, vmax=100, edgecolors="white", lw=1.5)
    for y, line in enumerate(rates):
        for x, value in enumerate(line):
            if value is not None:
                colour, weight = "white" if value > 55 else "black", "bold" if targets[x] == "(mean)" else None
                panel.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", color=colour, weight=weight)


def _panels(
    attacks: Sequence[str], width: float, labels: float, height: float, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """Makes a panel per attack, as many side by side as fit.

    Args:
        width: of a panel, in inches.
        labels: width of the labels to the left of the first panel, in inches.
        height: of a panel, in inches.
        sharex: gives all panels the same horizontal axis.
    """
    across = max(1, min(len(attacks), int((_WIDEST - labels) / width)))
    down = math.ceil(len(attacks) / across)
    figure = Figure(figsize=(max(5.0, labels + across * width), 0.9 + down * height), layout="constrained")
    grid = figure.subplots(down, across, sharex=sharex, squeeze=False).ravel()
    for index, panel in enumerate(grid):
        panel.tick_params(labelbottom=True, labelleft=index % across == 0)
    for panel in grid[len(attacks) :]:
        panel.remove()
    return figure, list(grid[: len(attacks)])


def styles_of(surrogates: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each surrogate: fixed for those that any experiment may have, in turn for its variants."""
    further = zip(cycle(_FURTHER_COLOURS), cycle(_FURTHER_SHAPES), strict=False)
    return {name: _STYLES.get(name) or next(further) for name in surrogates}


def _is_control(surrogate: str) -> bool:
    return is_control(surrogate) or surrogate == "aligned_ensemble" or surrogate.startswith("aligned_ensemble-")


def _means_first(rows: Sequence[TransferRow]) -> list[str]:
    """The targets, means first. Means over a single target are left out: they repeat its figures. Groups of the
    experiment, whose members are not known here, stay."""
    names = list(dict.fromkeys(row["target"] for row in rows))
    single = [row for row in rows if not row["target"].startswith("(mean")]

    def is_mean_of_several(name: str) -> bool:
        kind = name.strip("()").removeprefix("mean").strip()
        if kind and kind not in RELATIONS:
            return True
        members: dict[str, set[str]] = {}
        for row in single:
            if kind in ("", row["relation"]):
                members.setdefault(row["surrogate"], set()).add(row["target"])
        return any(len(targets) > 1 for targets in members.values())

    means = [name for name in names if name.startswith("(mean") and is_mean_of_several(name)]
    return means + [name for name in names if not name.startswith("(mean")]


def _label(target: str, rows: Sequence[TransferRow]) -> str:
    """The label of a target; with its relation to the source, if that is the same for all surrogates in `rows`."""
    if target.startswith("(mean"):
        kind = target.strip("()").removeprefix("mean").strip()
        return f"mean, {kind.replace('_', ' ')}" if kind else "mean"
    relations = {row["relation"] for row in rows if row["target"] == target}
    return f"{target}\n{relations.pop().replace('_', ' ')}" if len(relations) == 1 else target


def _longest(labels: Sequence[str]) -> int:
    return max((len(line) for label in labels for line in label.splitlines()), default=0)


def as_png(figure: Figure) -> bytes:
    """Renders a figure as a PNG file, without metadata, so that the same figure is the same bytes."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return content.getvalue()
