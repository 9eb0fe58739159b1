"""Computes the rows of robustness.csv: the surrogates' own accuracy, clean, attacked and with common corruptions."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from align_core.seeds import over_seeds
from align_core.transfer import Counts, paired_gain, resampled_counts, wilson
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
                    **_columns("accuracy", self._accuracy(right_SN)),
                    **_columns("change", Estimate() if before_SN is None else self._change(right_SN, before_SN)),
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

    def _accuracy(self, right_SN: Floats) -> Estimate:
        if len(right_SN) == 1 and _are_flags(right_SN):
            share = wilson(int(right_SN.sum()), right_SN.shape[1])
            return Estimate(share.value, share.low, share.high)
        return self._mean(right_SN)

    def _change(self, right_SN: Floats, before_SN: Floats) -> Estimate:
        if len(right_SN) == 1 and _are_flags(right_SN):
            change = paired_gain(right_SN[0].astype(bool), before_SN[0].astype(bool))
            return Estimate(change.value, change.low, change.high)
        return self._mean(right_SN - before_SN)

    def _mean(self, values_SN: Floats) -> Estimate:
        """The mean of values of images, by the bootstrap."""
        images = values_SN.shape[1]
        draws_SR = np.concatenate([100 * (counts @ values_SN.T) / images for counts in self._counts]).T
        if len(values_SN) > 1:
            over = over_seeds(list(100 * values_SN.mean(axis=1)), draws_SR)
            return Estimate(over.value, over.low, over.high, over.both_low, over.both_high)
        low, high = np.quantile(draws_SR, [0.025, 0.975])
        return Estimate(100 * float(values_SN.mean()), float(low), float(high))


def _are_flags(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _columns(name: str, of: Estimate) -> dict[str, float | None]:
    """The columns of a figure, rounded. That accuracies have an interval over seeds, too, no table shows."""
    return {name: figure(of.value)} | {
        f"{name}_{field}": figure(getattr(of, field)) for field in ("low", "high", "both_low", "both_high")
    }
