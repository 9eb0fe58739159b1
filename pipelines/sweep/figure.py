"""The figure of a sweep: gain against the searched settings, and gain against clean accuracy with the Pareto line."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.report.drawing import as_png
from pipelines.sweep.choice import pareto_set
from pipelines.sweep.record import Record
from pipelines.sweep.settings import label_of
from pipelines.sweep.space import Space

# The keys that are shown on the horizontal axis and by colour, where the space has them.
_ACROSS, _COLOUR = "align.temperature", "align.weight"


def sweep_figure(space: Space, records: Mapping[str, Record], best: str | None, name: str, surrogate: str) -> bytes:
    """Draws the finished trials and returns the picture as PNG.

    The left panel shows gain (in points, with its 95 % interval) against temperature, or else the first searched key;
    colour stands for weight, or else the second key. The right panel shows gain against clean accuracy, with a line
    through the Pareto set.

    Args:
        space, records: what was searched, and the trials by fingerprint; at least one is done.
        best: the fingerprint of the chosen trial, which gets a ring; None where none was chosen.
        name: the experiment's. surrogate: whose settings were searched.
    """
    done = {fingerprint: record for fingerprint, record in records.items() if record.status == "done"}
    across = _ACROSS if _ACROSS in space.keys else space.keys[0]
    others = [key for key in space.keys if key != across]
    colour = _COLOUR if _COLOUR in others else next(iter(others), None)
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours, scale = _numbers(space, done, colour)
    gains = [record.last["gain"] for record in done.values()]
    errors = [[max(0.0, r.last["gain"] - r.last["gain_low"]) for r in done.values()]]
    errors.append([max(0.0, r.last["gain_high"] - r.last["gain"]) for r in done.values()])
    values, _ = _numbers(space, done, across)
    _axis(left, space, across)
    left.errorbar(values, gains, yerr=errors, fmt="none", ecolor="0.75", elinewidth=1, zorder=1)
    dots = {"c": colours, "cmap": "viridis", "norm": scale, "edgecolors": "white", "linewidths": 0.6, "zorder": 2}
    shown = left.scatter(values, gains, s=60, **dots)
    accuracies = [record.last["clean_accuracy"] for record in done.values()]
    right.scatter(accuracies, gains, s=60, **dots)
    _pareto_line(right, done)
    if best is not None:
        chosen = list(done).index(best)
        for panel, x in ((left, values[chosen]), (right, accuracies[chosen])):
            panel.scatter([x], [gains[chosen]], s=190, facecolors="none", edgecolors="#D55E00", lw=2, label="chosen")
    for panel in (left, right):
        panel.axhline(0, color="0.25", lw=1)
        panel.grid(color="0.92", lw=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("mean gain on the validation targets, points (95 %)")
    right.set_xlabel("clean accuracy on the validation images, %")
    right.legend(frameon=False)
    if colour is not None:
        _colour_bar(figure, shown, right, space, colour)
    figure.suptitle(f"{name}: {surrogate}, sweep {space.name}, {len(done)} trials")
    return as_png(figure)


def _numbers(space: Space, done: Mapping[str, Record], key: str | None) -> tuple[Sequence[float], Any]:
    """Returns a key's value for each trial as a number, and how these numbers are scaled to colours.

    A choice's number is its position among the choices. Without a key, all numbers are 0.
    """
    from matplotlib.colors import LogNorm, Normalize

    if key is None:
        return [0.0 for _ in done], Normalize(0, 1)
    values = [record.settings[key] for record in done.values()]
    if key in space.choices:
        return [float(space.choices[key].index(v)) for v in values], Normalize(0, max(1, len(space.choices[key]) - 1))
    dimension = space.ranges[key]
    scaled = LogNorm if dimension.scale == "log" else Normalize
    return [float(value) for value in values], scaled(dimension.low, dimension.high)


def _axis(panel: Axes, space: Space, key: str) -> None:
    panel.set_xlabel(key)
    if key in space.choices:
        labels = [label_of(choice) for choice in space.choices[key]]
        panel.set_xticks(range(len(labels)), labels, rotation=20 if max(map(len, labels)) > 8 else 0)
        panel.set_xlim(-0.5, len(labels) - 0.5)
    elif space.ranges[key].scale == "log":
        low, high = space.ranges[key].low, space.ranges[key].high
        assert low is not None and high is not None
        panel.set_xscale("log", base=2 if key == _ACROSS else 10)
        panel.set_xlim(low * (low / high) ** 0.04, high * (high / low) ** 0.04)
        if key == _ACROSS:
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _pareto_line(panel: Axes, done: Mapping[str, Record]) -> None:
    ends = sorted((done[each].last["clean_accuracy"], done[each].last["gain"]) for each in pareto_set(done))
    line = np.asarray(ends)
    panel.plot(line[:, 0], line[:, 1], color="#0072B2", lw=1.5, zorder=1, label="not beaten in both (Pareto)")


def _colour_bar(figure: Figure, shown: Any, panel: Axes, space: Space, key: str) -> None:
    bar = figure.colorbar(shown, ax=panel, label=key)
    if key in space.choices:
        labels = [label_of(choice) for choice in space.choices[key]]
        bar.set_ticks(range(len(labels)), labels=labels)
