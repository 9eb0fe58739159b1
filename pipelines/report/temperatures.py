"""Gains against the temperature of the alignment, where surrogates differ in nothing else."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from pipelines.experiment.surrogates import Surrogate, series_of
from pipelines.report.drawing import FAINT, GREY, styles_of
from pipelines.report.estimates import Estimate, draw_estimates
from pipelines.report.means import gain_of
from pipelines.report.panels import in_panels
from pipelines.report.rows import TransferRow


class AtTemperature(NamedTuple):
    """The mean gain of one surrogate under one attack, in points, and the temperature of its alignment.

    `line` names those that differ in their temperature alone: the first of them.
    """

    line: str
    surrogate: str
    attack: str
    temperature: float
    gain: float
    low: float
    high: float


def gains_by_temperature(surrogates: Sequence[Surrogate], transfer: Sequence[TransferRow]) -> list[AtTemperature]:
    """The mean gains of surrogates of which there is at least one other with the same settings but for the temperature.

    Surrogates without a witness have no temperature.
    """
    found = []
    for line in _alike(surrogates):
        if len(set(line.values())) < 2:
            continue
        for row in transfer:
            name, attack, gain = row["surrogate"], row["attack"], gain_of(row)
            if name in line and row["target"] == "(mean)" and gain is not None:
                found.append(AtTemperature(next(iter(line)), name, attack, line[name], *gain))
    return found


def lines_of(surrogates: Sequence[Surrogate]) -> dict[str, str]:
    """Surrogate -> the first of those that have the same settings but for the temperature."""
    return {name: next(iter(line)) for line in _alike(surrogates) for name in line}


def _alike(surrogates: Sequence[Surrogate]) -> list[dict[str, float]]:
    """Surrogates with a witness by what they differ in at most, their temperature."""
    lines: dict[str, dict[str, float]] = {}
    for own in surrogates:
        if own.align is not None and own.witnesses:
            settings = dataclasses.asdict(own.align)
            temperature = settings.pop("temperature")
            witnesses = [series_of(name) for name in own.witnesses]
            alike = json.dumps([own.source, witnesses, own.refine, settings], sort_keys=True, default=str)
            lines.setdefault(alike, {})[own.series] = temperature
    return list(lines.values())


def temperature_figures(gains: Sequence[AtTemperature], title: str) -> list[Figure]:
    """Draws these gains over the temperature: a panel per attack, and a line for those that are otherwise alike."""
    attacks = list(dict.fromkeys(own.attack for own in gains))
    styles = styles_of(list(dict.fromkeys(own.line for own in gains)))

    def draw(panel: Axes, attack: str) -> None:
        for line, (colour, shape) in styles.items():
            own = [
                Estimate(f"{g.surrogate}, temperature {g.temperature:g}", g.temperature, g.gain, g.low, g.high)
                for g in gains
                if (g.line, g.attack) == (line, attack)
            ]
            draw_estimates(panel, own, line, colour, shape, upright=True, joined=True, size=6)
        over_temperatures(panel, {g.temperature for g in gains})
        panel.tick_params(labelleft=True)
        panel.set_ylabel("mean gain, points (95 %)", fontsize="small")
        panel.set_title(attack, fontsize="medium")

    return in_panels(attacks, draw, 4.2, 0.6, 3.4, title=title, named=list(styles) if len(styles) > 1 else [])


def over_temperatures(panel: Axes, temperatures: Collection[float]) -> None:
    """Gives a panel the axis of the temperature, with a mark at each of these, and a line at zero."""
    panel.axhline(0, color=GREY, lw=1)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xticks(sorted(temperatures))
    panel.grid(color=FAINT, lw=0.6)
    panel.set_axisbelow(True)
    panel.set_xlabel("temperature", fontsize="small")
