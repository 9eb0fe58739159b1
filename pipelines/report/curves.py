"""Training curves: the loss of each network that was made here, step by step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.experiment.surrogates import series_of
from pipelines.report.drawing import FAINT, styles_of
from pipelines.report.panels import in_panels
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.csv_table import from_csv

_MOST_POINTS = 60
_TRAINED = "models trained here"


class Curve(NamedTuple):
    """The loss of one network while it was made.

    Attributes:
        panel: the surrogate without its seed, or, of a model that was trained here, the name that all of them share.
        name: of the network.
        steps, losses: the middle of each of at most 60 equal parts of the training, and the mean loss of its steps.
    """

    panel: str
    name: str
    steps: list[float]
    losses: list[float]


def training_curves(blueprint: Blueprint) -> list[Curve]:
    """The curves of the surrogates that were made here, then those of the models that were trained here.

    A network whose curve is not there, because it was copied without it, is left out.
    """
    surrogates = [own.name for own in blueprint.surrogates if own.align is not None]
    folders = {f"models/{name}": (series_of(name), name) for name in surrogates}
    folders |= {f"trained/{name}": (_TRAINED, name) for name in blueprint.trained_for_run}
    found = []
    for folder, (panel, name) in folders.items():
        try:
            rows = from_csv(blueprint.store.read(f"{folder}/curves.csv"))
            points = [(int(row["step"]), float(row["loss"])) for row in rows]
        except (FileNotFoundError, KeyError, ValueError, TypeError):
            continue
        if points:
            parts = np.array_split(np.array(points), min(_MOST_POINTS, len(points)))
            means = np.array([part.mean(axis=0) for part in parts])
            found.append(Curve(panel, name, means[:, 0].tolist(), means[:, 1].tolist()))
    return found


def curve_figures(curves: Sequence[Curve], title: str) -> list[Figure]:
    """Draws these curves: a panel per surrogate, in which each seed is a line, and one for all models trained here."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    colours = {panel: colour for panel, (colour, _) in styles_of(panels).items()}

    def draw(panel: Axes, name: str) -> None:
        own = [curve for curve in curves if curve.panel == name]
        styles = styles_of([curve.name for curve in own])
        for curve in own:
            is_trained = name == _TRAINED
            colour, shape = styles[curve.name] if is_trained else (colours[name], "")
            panel.plot(
                curve.steps, curve.losses, color=colour, lw=1.2, marker=shape, markevery=12, ms=4,
                label=curve.name if is_trained else None,
            )  # fmt: skip
        panel.set_title(name, fontsize="small")
        panel.set_xlabel("step", fontsize="x-small")
        panel.set_ylabel("loss", fontsize="x-small")
        panel.tick_params(labelsize="x-small", labelleft=True)
        panel.grid(color=FAINT, lw=0.6)
        panel.set_ylim(bottom=min(0.0, *(min(curve.losses) for curve in own)))

    named = [curve.name for curve in curves if curve.panel == _TRAINED]
    return in_panels(panels, draw, 2.5, 0.0, 1.9, title=title, named=named)
