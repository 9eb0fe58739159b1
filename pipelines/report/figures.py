"""Figures of the report: the gain of every surrogate with its interval, and a heatmap of transfer rates."""

import io
import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = dict[str, Any]

_WIDEST, _TALLEST = 13.0, 16.0  # inches: further panels go below; more targets than that are shown by their means
# The same surrogate looks the same in every report. Colours after Okabe and Ito; shapes tell them apart without colour.
_STYLES = {
    "aligned": ("#0072B2", "o"),
    "label_only": ("#E69F00", "s"),
    "witness": ("#009E73", "D"),
    "ensemble": ("#CC79A7", "^"),
    "aligned_ensemble": ("#56B4E9", "v"),
}
_FURTHER_COLOURS = ("#D55E00", "#444444", "#7B4FA3", "#8C6D1F", "#B2182B")
_FURTHER_SHAPES = ("P", "X", "<", ">", "p", "h", "*")


def gain_figure(transfer: Sequence[Row], title: str) -> bytes:
    """Gain over the source with its 95 % interval, a panel per attack, targets down, a colour per surrogate. PNG."""
    rows = [row for row in transfer if row["gain"] is not None]
    attacks = list(dict.fromkeys(row["attack"] for row in transfer))
    surrogates = list(dict.fromkeys(row["surrogate"] for row in rows))
    styles = _styles(surrogates)
    targets = _means_first(rows)
    band = 0.15 * len(surrogates) + 0.22
    if band * len(targets) > _TALLEST:
        targets = [target for target in targets if target.startswith("(mean")] or targets
        title += " (single targets: transfer.csv)"
    labels = [_label(target, rows) for target in targets]
    figure, panels = _panels(attacks, 3.6, 0.09 * _longest(labels), 0.6 + band * max(1, len(targets)), sharex=True)
    for panel, attack in zip(panels, attacks, strict=True):
        _draw_bands(panel, targets, labels)
        for index, surrogate in enumerate(surrogates):
            mine = [row for row in rows if (row["attack"], row["surrogate"]) == (attack, surrogate)]
            mine = [row for row in mine if row["target"] in targets]
            places = [targets.index(row["target"]) - 0.38 + 0.76 * (index + 0.5) / len(surrogates) for row in mine]
            # a percentile interval need not hold its estimate: no negative bar
            below = [max(0.0, row["gain"] - row["gain_low"]) for row in mine]
            above = [max(0.0, row["gain_high"] - row["gain"]) for row in mine]
            colour, shape = styles[surrogate]
            line, dot = (1.3, 5) if _is_control(surrogate) else (2.4, 7)
            panel.errorbar(
                [row["gain"] for row in mine], places, xerr=[below, above], label=surrogate,
                fmt=shape, color=colour, ms=dot, mec="white", mew=0.5, elinewidth=line,
            )  # fmt: skip
        panel.set_title(attack, fontsize="medium")
        panel.set_xlabel("gain over the source, points (95 %)", fontsize="small")
        if not rows:
            panel.text(0.5, 0.5, "no gain could be measured", ha="center", va="center", transform=panel.transAxes)
    figure.suptitle(title)
    if rows:
        lines = math.ceil(sum(0.6 + 0.08 * len(name) for name in surrogates) / figure.get_figwidth())
        handles = panels[0].get_legend_handles_labels()
        columns = math.ceil(len(surrogates) / lines)
        figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1.5)
    return as_png(figure)


def _draw_bands(panel: Axes, targets: Sequence[str], labels: Sequence[str]) -> None:
    """A band per target, from the top down; those of means are shaded. A line where there is no gain."""
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


def transfer_heatmap(transfer: Sequence[Row], title: str) -> bytes:
    """Transfer rate in percent, a panel per attack, surrogates down, targets across. PNG."""
    attacks = list(dict.fromkeys(row["attack"] for row in transfer))
    surrogates = list(dict.fromkeys(row["surrogate"] for row in transfer))
    targets = [t for t in _means_first(transfer) if not t.startswith("(mean ")]
    labels = [_label(target, []) for target in targets]
    rates = {(row["attack"], row["surrogate"], row["target"]): row["rate"] for row in transfer}
    height = 0.7 + 0.36 * len(surrogates) + 0.06 * _longest(labels)
    figure, panels = _panels(attacks, 0.3 + 0.55 * len(targets), 0.09 * _longest(surrogates), height)
    for panel, attack in zip(panels, attacks, strict=True):
        shown = [[rates.get((attack, s, t)) for t in targets] for s in surrogates]
        numbers = [[math.nan if value is None else value for value in line] for line in shown]
        panel.pcolormesh(numbers, cmap="Blues", vmin=0, vmax=100, edgecolors="white", lw=1.5)
        for y, line in enumerate(shown):
            for x, value in enumerate(line):
                if value is not None:
                    colour, weight = "white" if value > 55 else "black", "bold" if targets[x] == "(mean)" else None
                    panel.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", color=colour, weight=weight)
        across, down = ([place + 0.5 for place in range(len(names))] for names in (targets, surrogates))
        panel.set_xticks(across, labels, rotation=40, ha="right", rotation_mode="anchor")
        panel.set_yticks(down, surrogates)
        panel.invert_yaxis()
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(attack, fontsize="medium")
    figure.suptitle(title)
    return as_png(figure)


def _panels(
    attacks: Sequence[str], width: float, labels: float, height: float, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """A panel per attack, `width` x `height` inches, as many beside each other as fit; `labels` inches at the left."""
    across = max(1, min(len(attacks), int((_WIDEST - labels) / width)))
    down = math.ceil(len(attacks) / across)
    figure = Figure(figsize=(max(5.0, labels + across * width), 0.9 + down * height), layout="constrained")
    grid = figure.subplots(down, across, sharex=sharex, squeeze=False).ravel()
    for index, panel in enumerate(grid):
        panel.tick_params(labelbottom=True, labelleft=index % across == 0)
    for panel in grid[len(attacks) :]:
        panel.remove()
    return figure, list(grid[: len(attacks)])


def _styles(surrogates: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each surrogate: fixed for those of every experiment, in turn for the others."""
    further = zip(cycle(_FURTHER_COLOURS), cycle(_FURTHER_SHAPES), strict=False)
    return {name: _STYLES.get(name) or next(further) for name in surrogates}


def _is_control(surrogate: str) -> bool:
    return (surrogate in _STYLES and surrogate != "aligned") or surrogate.startswith("witness-")


def _means_first(rows: Sequence[Row]) -> list[str]:
    """Targets, first the means; without the means of fewer than two targets, which say nothing new."""
    names = list(dict.fromkeys(row["target"] for row in rows))
    single = [row for row in rows if not row["target"].startswith("(mean")]

    def is_mean_of_several(name: str) -> bool:
        kind = name.strip("()").removeprefix("mean").strip()
        members: dict[str, set[str]] = {}
        for row in single:
            if kind in ("", row["relation"]):
                members.setdefault(row["surrogate"], set()).add(row["target"])
        return any(len(targets) > 1 for targets in members.values())

    means = [name for name in names if name.startswith("(mean") and is_mean_of_several(name)]
    return means + [name for name in names if not name.startswith("(mean")]


def _label(target: str, rows: Sequence[Row]) -> str:
    """A target in words, with its relation to the source where it is the same one for all surrogates in `rows`."""
    if target.startswith("(mean"):
        kind = target.strip("()").removeprefix("mean").strip()
        return f"mean, {kind.replace('_', ' ')}" if kind else "mean"
    relations = {row["relation"] for row in rows if row["target"] == target}
    return f"{target}\n{relations.pop().replace('_', ' ')}" if len(relations) == 1 else target


def _longest(labels: Sequence[str]) -> int:
    return max((len(line) for label in labels for line in label.splitlines()), default=0)


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return content.getvalue()
