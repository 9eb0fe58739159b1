"""Computes the rows of robustness.csv: the surrogates' own accuracy, clean, attacked and with common corruptions."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from align_core.seeds import over_seeds
from align_core.transfer import Counts, Gain, Interval, paired_gain, resampled_counts, wilson
from pipelines.experiment.surrogates import Surrogate
from pipelines.report.outcomes import Outcomes
from pipelines.report.robustness_rows import ALL, MEAN, Kind, RobustnessRow
from pipelines.report.rounding import figure
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF

_RESAMPLES = 2_000

Floats = npt.NDArray[np.float64]


class Key(NamedTuple):
    """What the images are on which a surrogate is asked."""

    kind: Kind
    name: str
    severity: int | None

    @property
    def is_mean(self) -> bool:
        """Whether an image has a share, and not just right or wrong."""
        return self.name == MEAN


Right = dict[Key, Floats]
"""For each image whether a surrogate is right, 1 or 0, [N]; of a mean over corruptions, how often."""


class Estimate(NamedTuple):
    """A share or a change with its interval over images and, of several seeds, over both; in percent or points."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    both_low: float | None = None
    both_high: float | None = None


class Robustness:
    """Computes how accurate surrogates are on all test images.

    Args:
        blueprint: the experiment.
        outcomes: all of its outcomes.
    """

    def __init__(self, blueprint: Blueprint, outcomes: Outcomes) -> None:
        self.blueprint, self.outcomes, self.attacks = blueprint, outcomes, list(blueprint.experiment.attacks)
        self._known: dict[str, Right] = {}

    def rows(self) -> list[RobustnessRow]:
        """The rows, surrogate by surrogate; of several seeds, those that all of them have."""
        series: dict[str, list[Surrogate]] = {}
        for surrogate in self.blueprint.surrogates:
            if self.blueprint.clean_name(surrogate) in self.outcomes.prediction:
                series.setdefault(surrogate.series, []).append(surrogate)
        whole = max(1, len(self.blueprint.experiment.seeds))
        return [row for name, own in series.items() if len(own) == whole for row in self._rows_of(name, own)]

    @cached_property
    def _counts(self) -> list[Counts]:
        """The resamples of the images, which means and several seeds need: a single share has an interval without."""
        return list(resampled_counts(len(self.outcomes.labels), self.blueprint.experiment.seed, _RESAMPLES))

    def _rows_of(self, series: str, surrogates: Sequence[Surrogate]) -> Iterator[RobustnessRow]:
        found, before = [self._right(own) for own in surrogates], [self._right_before(own) for own in surrogates]
        for key in found[0]:
            if all(key in right for right in found):
                right_SN = np.stack([right[key] for right in found])
                is_compared = all(key in right for right in before)
                before_SN = np.stack([right[key] for right in before]) if is_compared else None
                columns = {
                    "surrogate": series,
                    **key._asdict(),
                    "seeds": len(surrogates),
                    **_columns("accuracy", self._accuracy(right_SN, key)),
                    **_columns("change", Estimate() if before_SN is None else self._change(right_SN, before_SN, key)),
                }
                yield cast(RobustnessRow, {name: columns[name] for name in RobustnessRow.__annotations__})

    def _right_before(self, surrogate: Surrogate) -> Right:
        """What the original source of a surrogate is right about; nothing where that is the surrogate itself."""
        baseline = self.blueprint.by_name.get(surrogate.baseline)
        if baseline is None or baseline is surrogate:
            return {}
        return self._right(baseline) if self.blueprint.clean_name(baseline) in self.outcomes.prediction else {}

    def _right(self, surrogate: Surrogate) -> Right:
        if surrogate.name not in self._known:
            self._known[surrogate.name] = {key: own.astype(np.float64) for key, own in self._found(surrogate)}
        return self._known[surrogate.name]

    def _found(self, surrogate: Surrogate) -> Iterator[tuple[Key, npt.NDArray[Any]]]:
        outcomes, clean_name = self.outcomes, self.blueprint.clean_name(surrogate)
        yield Key("clean", "", None), outcomes.right(clean_name)
        there = [own for own in self.attacks if (surrogate.name, own, SELF) in outcomes.wrong]
        for attack in there:
            yield Key("attack", attack, None), ~outcomes.wrong[surrogate.name, attack, SELF]
        if len(self.attacks) > 1 and there == self.attacks:
            yield Key("attack", ALL, None), outcomes.robust(surrogate.name, clean_name, self.attacks)
        corrupted = {
            corruption: prediction == outcomes.labels
            for (corruption, name), prediction in outcomes.corrupted.items()
            if name == clean_name
        }
        for corruption, right in corrupted.items():
            yield Key("corruption", *corruption), right
        if len(corrupted) > 1 and len(corrupted) == len(self.blueprint.corruptions):
            yield Key("corruption", MEAN, None), np.mean(list(corrupted.values()), axis=0)

    def _accuracy(self, right_SN: Floats, key: Key) -> Estimate:
        alone = []
        if not key.is_mean:
            alone = [wilson(int(right_N.sum()), len(right_N)) for right_N in right_SN]
        return self._over(right_SN, alone)

    def _change(self, right_SN: Floats, before_SN: Floats, key: Key) -> Estimate:
        alone = []
        if not key.is_mean:
            pairs = zip(right_SN.astype(bool), before_SN.astype(bool), strict=True)
            alone = [paired_gain(right_N, before_N) for right_N, before_N in pairs]
        return self._over(right_SN - before_SN, alone)

    def _over(self, values_SN: Floats, alone: Sequence[Interval | Gain]) -> Estimate:
        """The mean of values of images [S, N], over all seeds.

        Args:
            values_SN: of each seed and image.
            alone: of each seed the interval that a single share or difference has; where there is none, the bootstrap's
                is taken.
        """
        if len(alone) == 1:
            return Estimate(alone[0].value, alone[0].low, alone[0].high)
        images = values_SN.shape[1]
        draws_SR = np.concatenate([100 * (counts @ values_SN.T) / images for counts in self._counts]).T
        drawn = [(float(low), float(high)) for low, high in np.quantile(draws_SR, [0.025, 0.975], axis=1).T]
        if len(values_SN) > 1:
            limits = [(float(own.low or 0), float(own.high or 0)) for own in alone] or drawn
            over = over_seeds(list(100 * values_SN.mean(axis=1)), draws_SR, limits)
            return Estimate(over.value, over.low, over.high, over.both_low, over.both_high)
        return Estimate(100 * float(values_SN.mean()), *drawn[0])


def _columns(name: str, of: Estimate) -> dict[str, float | None]:
    """The columns of a figure, rounded. That accuracies have an interval over seeds, too, no table shows."""
    return {name: figure(of.value)} | {
        f"{name}_{field}": figure(getattr(of, field)) for field in ("low", "high", "both_low", "both_high")
    }
