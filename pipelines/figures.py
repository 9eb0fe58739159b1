"""Figures of the report: the gain of every surrogate with its interval, and a heatmap of transfer rates."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = dict[str, Any]


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return content.getvalue()


def gain_figure(transfer: Sequence[Row], title: str) -> bytes:
    """Gain over the source with its 95 % interval, a panel per attack, targets down, a colour per surrogate. PNG."""
    rows = [row for row in transfer if row["gain"] is not None]
    attacks = list(dict.fromkeys(row["attack"] for row in transfer))
    surrogates = list(dict.fromkeys(row["surrogate"] for row in rows))
    targets = list(dict.fromkeys(row["target"] for row in rows))[::-1]
    height = max(2.5, 0.5 + len(targets) * (0.16 * len(surrogates) + 0.18))
    figure = Figure(figsize=(1.5 + 4.5 * len(attacks), height), layout="constrained")
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for panel, attack in zip(panels, attacks, strict=True):
        for index, surrogate in enumerate(surrogates):
            mine = [row for row in rows if row["attack"] == attack and row["surrogate"] == surrogate]
            offset = 0.38 - 0.76 * (index + 0.5) / len(surrogates)
            places = [targets.index(row["target"]) + offset for row in mine]
            gains = [row["gain"] for row in mine]
            # a percentile interval need not hold its estimate: no negative bar
            below = [max(0.0, row["gain"] - row["gain_low"]) for row in mine]
            above = [max(0.0, row["gain_high"] - row["gain"]) for row in mine]
            panel.errorbar(gains, places, xerr=[below, above], fmt="o", ms=4, lw=1.2, capsize=2, label=surrogate)
        panel.axvline(0, color="0.3", lw=0.8)
        panel.set_yticks(range(len(targets)), targets)
        panel.grid(axis="x", color="0.9")
        panel.set_title(attack)
        panel.set_xlabel("gain over the source, points (95 %)")
    if rows:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    figure.suptitle(title)
    return _png(figure)


def transfer_heatmap(transfer: Sequence[Row], title: str) -> bytes:
    """Transfer rate in percent, a panel per attack, surrogates down, targets across. PNG."""
    attacks = list(dict.fromkeys(row["attack"] for row in transfer))
    surrogates = list(dict.fromkeys(row["surrogate"] for row in transfer))
    targets = [t for t in dict.fromkeys(row["target"] for row in transfer) if not t.startswith("(mean ")]
    rates = {(row["attack"], row["surrogate"], row["target"]): row["rate"] for row in transfer}
    size = (2 + len(attacks) * (0.9 + 0.75 * len(targets)), 1.6 + 0.42 * len(surrogates))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for panel, attack in zip(panels, attacks, strict=True):
        shown = [[rates.get((attack, s, t)) for t in targets] for s in surrogates]
        panel.imshow(
            [[float("nan") if value is None else value for value in line] for line in shown],
            cmap="viridis", vmin=0, vmax=100, aspect="auto",
        )  # fmt: skip
        for y, line in enumerate(shown):
            for x, value in enumerate(line):
                if value is not None:
                    colour = "black" if value > 60 else "white"
                    panel.text(x, y, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
        panel.set_xticks(range(len(targets)), targets, rotation=40, ha="right")
        panel.set_yticks(range(len(surrogates)), surrogates)
        panel.set_title(attack)
    figure.suptitle(title)
    return _png(figure)
