"""What is missing of an experiment, summed up by surrogate: over its seeds, its attacks, and the stages of a run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipelines.experiment.surrogates import series_of
from pipelines.run.forecast import FineTune, Forecast, Part, time_text

_Number = TypeVar("_Number", int, float)
_COUNTS = ("networks", "images", "gradients", "predictions", "measurements")


@dataclass(frozen=True)
class MissingWork:
    """What has to be made yet of one surrogate or model, over all its seeds and attacks.

    Attributes:
        name: the surrogate or model without a seed, or what has none, such as `clean images`.
        networks: number of networks to train or align.
        images: number of images to craft.
        gradients: number of gradients that these take; None where that of an attack is unknown.
        predictions, measurements: number of predictions to make, and of images to measure for `reasons`.
        seconds: how long all that takes one worker, and a network those that make it; None where a rate has not been
            measured.
    """

    name: str
    networks: int
    images: int
    gradients: int | None
    predictions: int
    measurements: int
    seconds: float | None


def missing_work(forecast: Forecast) -> list[MissingWork]:
    """An entry for every model, surrogate and set of images of which something is missing, models first."""
    networks: dict[str, list[FineTune]] = {}
    for network in forecast.networks:
        networks.setdefault(series_of(network.name), []).append(network)
    parts: dict[str, list[Part]] = {}
    for part in forecast.parts:
        parts.setdefault(series_of(part.of), []).append(part)
    order = [*(name for name in networks if name not in parts), *parts]
    left = {name: [part for part in own if part.units] for name, own in parts.items()}
    found = {name: (networks.get(name, []), left.get(name, [])) for name in order}
    return [_summed(name, *own) for name, own in found.items() if any(own)]


def table_of(work: Sequence[MissingWork]) -> list[list[str]]:
    """The rows that `witness plan` prints, headings first, without columns of which nothing is missing or known."""
    if not work:
        return []
    columns = [["missing", *(own.name for own in work)]]
    for count in _COUNTS:
        numbers = [getattr(own, count) for own in work]
        if any(number != 0 for number in numbers):
            columns.append([count, *("unknown" if n is None else f"{n:,}" if n else "" for n in numbers)])
    if any(own.seconds is not None for own in work):
        times = ["unknown" if own.seconds is None else time_text(own.seconds) for own in work]
        columns.append(["time of one worker", *times])
    return [list(row) for row in zip(*columns, strict=True)]


def _summed(name: str, networks: Sequence[FineTune], parts: Sequence[Part]) -> MissingWork:
    units = {stage: [own for own in parts if own.stage == stage] for stage in ("craft", "evaluate", "reasons")}
    images, predictions, measurements = (sum(own.units for own in of) for of in units.values())
    return MissingWork(
        name,
        networks=len(networks),
        images=images,
        gradients=_sum(own.gradients for own in units["craft"]),
        predictions=predictions,
        measurements=measurements,
        seconds=_sum([*(own.seconds for own in networks), *(own.seconds for own in parts)]),
    )


def _sum(numbers: Iterable[_Number | None]) -> _Number | None:
    """The sum, or None where one of the numbers is unknown."""
    total: _Number = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total
