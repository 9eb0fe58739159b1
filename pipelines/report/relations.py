"""Gains by the relation of targets to the source, and by the experiment's groups: for whom does a surrogate gain?"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.report.drawing import GREY, say_nothing
from pipelines.report.estimates import Estimate, draw_estimates
from pipelines.report.means import gain_of, is_mean, kind_of, without_repeats
from pipelines.report.panels import as_rows, in_panels, longest
from pipelines.report.rows import TransferRow

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", GREY)
_SHAPES = ("o", "s", "D", "^", "v", "P", "X")


class KindGain(NamedTuple):
    """The mean gain of one surrogate under one attack over the targets of one relation or group, in points."""

    surrogate: str
    attack: str
    kind: str
    gain: float
    low: float
    high: float


def gains_by_kind(transfer: Sequence[TransferRow]) -> list[KindGain]:
    """Every mean gain over the targets of one relation or group.

    There is none where all targets have one relation and there are no groups: the mean over all targets says the same.
    """
    found = []
    for row in without_repeats(transfer):
        gain, kind = gain_of(row), kind_of(row["target"]) if is_mean(row["target"]) else ""
        if kind and gain is not None:
            found.append(KindGain(row["surrogate"], row["attack"], kind, *gain))
    return found


def relation_figures(gains: Sequence[KindGain], title: str) -> list[Figure]:
    """Draws these gains: a panel per attack, with the surrogates from top to bottom and a colour for each kind."""
    surrogates = list(dict.fromkeys(own.surrogate for own in gains))
    kinds, attacks = list(dict.fromkeys(own.kind for own in gains)), list(dict.fromkeys(own.attack for own in gains))
    labels = {kind: kind.replace("_", " ") for kind in kinds}
    band = 0.13 * len(kinds) + 0.16

    def draw(panel: Axes, attack: str) -> None:
        for index, kind in enumerate(kinds):
            up = -0.35 + 0.7 * (index + 0.5) / len(kinds)
            own = [
                Estimate(f"{g.surrogate}, {labels[kind]}", surrogates.index(g.surrogate) + up, g.gain, g.low, g.high)
                for g in gains
                if (g.attack, g.kind) == (attack, kind)
            ]
            draw_estimates(panel, own, labels[kind], _COLOURS[index % len(_COLOURS)], _SHAPES[index % len(_SHAPES)])
        as_rows(panel, surrogates)
        panel.set_title(attack, fontsize="medium")
        panel.set_xlabel("mean gain over the source, points (95 %)", fontsize="small")
        if not any(own.attack == attack for own in gains):
            say_nothing(panel, "no gain could be measured")

    sizes = 3.6, 0.09 * longest(surrogates), 0.8 + band * len(surrogates)
    return in_panels(attacks, draw, *sizes, title=title, sharex=True, named=list(labels.values()))
