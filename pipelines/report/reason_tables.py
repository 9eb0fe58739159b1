"""Computes the rows of reasons.csv from the reasons of single images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from align_core.reasons.over_images import Floats, Means, limits, means_over_images
from align_core.seeds import over_seeds
from align_core.transfer import FEW, resampled_counts
from pipelines.experiment.surrogates import Surrogate, series_of
from pipelines.failure import RunFailed
from pipelines.report.outcomes import read_table
from pipelines.report.reason_rows import PERCENT, ReasonRow
from pipelines.report.rounding import significant
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.stages.measurings import witnesses_compared
from pipelines.storage.chunked_table import ChunkedTable

ALL_TARGETS = "(mean)"
CURVED, CONVERGED = "curvature", "curvature_converged"


class Key(NamedTuple):
    """What one figure of a surrogate is: a measure, a point, and the other network without its seed, or ""."""

    measure: str
    point: str
    counterpart: str


Figures = Mapping[Key, Floats]
"""The values of single images [N], NaN for blanks; shares of images are 0 or 100, and so on, as the table has them."""


class ReasonTables:
    """The reasons of all surrogates, and their means over the sample.

    Args:
        blueprint: the experiment. Its tables of reasons are finished.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, self.tables = blueprint, blueprint.reasons()
        ids = blueprint.inspected.manifests["test"].ids
        self._ids = pa.chunked_array([[ids[position] for position in blueprint.sample.positions]], pa.string())
        self.counts = list(resampled_counts(len(self._ids), blueprint.experiment.seed))
        self._known: dict[str, Figures] = {}
        self._known_converged: dict[str, Mapping[str, Floats]] = {}

    def rows(self) -> list[ReasonRow]:
        """The rows of reasons.csv, surrogate by surrogate; of several seeds, those that all of them have."""
        series: dict[str, list[Surrogate]] = {}
        for surrogate in self.blueprint.surrogates:
            series.setdefault(surrogate.series, []).append(surrogate)
        whole = max(1, len(self.blueprint.experiment.seeds))
        return [row for name, own in series.items() if len(own) == whole for row in self._rows_of(name, own)]

    def read(self, table: ChunkedTable) -> dict[str, Floats]:
        """The columns of a table, float64 [N]. Raises RunFailed where it is damaged or not of the sample."""
        rows = read_table(self.blueprint.store, table, None)
        if not rows["image_id"].equals(self._ids):
            raise RunFailed(f"{table.folder} does not hold the sample; delete this folder and run again")
        names = [name for name in rows.column_names if name not in ("image_id", "label")]
        try:
            return {name: np.asarray(rows[name].cast(pa.float64()).fill_null(np.nan).to_numpy()) for name in names}
        except pa.ArrowException as problem:
            raise RunFailed(f"{table.folder} holds what is no number; delete this folder and run again") from problem

    def _rows_of(self, series: str, surrogates: Sequence[Surrogate]) -> list[ReasonRow]:
        found = [self.figures(own.name) for own in surrogates]
        keys = [key for key in found[0] if all(key in figures for figures in found)]
        if not keys:
            return []
        values = [self._means([figures[key] for key in keys]) for figures in found]
        changes = [self._means(self._changes(own, keys)) for own in surrogates]
        shown = [_over_seeds(side) for side in (values, changes)]
        both = _both(changes)
        n_M, roles = np.min([own.n_M for own in values], axis=0), self._roles(surrogates[0])
        rows = []
        for at, key in enumerate(keys):
            (value, low, high), (change, change_low, change_high) = ([own[at] for own in side] for side in shown)
            if n_M[at] < FEW:
                low = high = change_low = change_high = np.nan
            row: ReasonRow = {
                "surrogate": series,
                "measure": key.measure,
                "point": key.point,
                "counterpart": key.counterpart,
                "role": roles.get(key.counterpart, ""),
                "n": int(n_M[at]),
                "seeds": len(surrogates),
                "value": significant(value),
                "value_low": significant(low),
                "value_high": significant(high),
                "change": significant(change),
                "change_low": significant(change_low),
                "change_high": significant(change_high),
                "change_both_low": significant(both[0][at]),
                "change_both_high": significant(both[1][at]),
                "converged": significant(self._converged(surrogates, key)),
            }
            rows.append(row)
        return rows

    def figures(self, surrogate: str) -> Figures:
        """All figures of one surrogate: its own, those with each other network, and their means over the targets."""
        if surrogate not in self._known:
            self._known[surrogate] = self._read_figures(surrogate)
        return self._known[surrogate]

    def _read_figures(self, surrogate: str) -> Figures:
        found: dict[Key, Floats] = {}
        for (name, other), table in self.tables.items():
            if name == surrogate:
                counterpart = "" if other == SELF else series_of(other)
                for column, values_N in self.read(table).items():
                    measure, _, point = column.partition("/")
                    scale = 100.0 if measure in PERCENT else 1.0
                    # Of an eigenvalue the magnitude counts: a surface that bends down is as far from smooth.
                    found[Key(measure, point, counterpart)] = abs(values_N) if measure == CURVED else scale * values_N
        self._known_converged[surrogate] = {
            key.point: found.pop(key) for key in list(found) if key.measure == CONVERGED
        }
        targets = self.blueprint.by_name[surrogate].unseen(self.blueprint.experiment.targets)
        alike: dict[Key, list[Floats]] = {}
        for key, values_N in found.items():
            if key.counterpart in targets:
                alike.setdefault(key._replace(counterpart=ALL_TARGETS), []).append(values_N)
        return found | {key: _mean_of(own) for key, own in alike.items() if len(own) == len(targets)}

    def _changes(self, surrogate: Surrogate, keys: Sequence[Key]) -> list[Floats]:
        """The differences to the original source, image by image; blanks for that source itself."""
        own, blank_N = self.figures(surrogate.name), np.full(len(self._ids), np.nan)
        is_source = surrogate.name == surrogate.baseline or surrogate.baseline not in self.blueprint.by_name
        before = {} if is_source else self.figures(surrogate.baseline)
        return [own[key] - before[key] if key in before else blank_N for key in keys]

    def _converged(self, surrogates: Sequence[Surrogate], key: Key) -> float:
        """The share of the images with a figure on which it converged, percent; NaN where that means nothing."""
        if key.measure != CURVED:
            return np.nan
        shares = []
        for own in surrogates:
            has_N = ~np.isnan(self.figures(own.name)[key])
            converged_N = self._known_converged[own.name][key.point]
            shares.append(100 * float(converged_N[has_N].mean()) if has_N.any() else np.nan)
        return float(np.mean(shares))

    def _roles(self, surrogate: Surrogate) -> dict[str, str]:
        witnesses = dict.fromkeys(map(series_of, witnesses_compared(self.blueprint, surrogate)), "witness")
        targets = dict.fromkeys((*surrogate.unseen(self.blueprint.experiment.targets), ALL_TARGETS), "target")
        return targets | witnesses

    def _means(self, figures: Sequence[Floats]) -> Means:
        return means_over_images(np.stack(figures, axis=1), self.counts)


def _over_seeds(means: Sequence[Means]) -> tuple[Floats, Floats, Floats]:
    """The mean over the seeds of each figure, and the limits of its interval for these very seeds."""
    value_M: Floats = np.mean([own.value_M for own in means], axis=0)
    return (value_M, *limits(np.mean([own.draws_RM for own in means], axis=0)))


def _both(means: Sequence[Means]) -> tuple[Floats, Floats]:
    """The limits of each figure's interval over images and seeds; NaN for one seed, few images, or blanks."""
    found_2M = np.full((2, len(means[0].value_M)), np.nan)
    alone = [limits(own.draws_RM) for own in means]
    for at in range(found_2M.shape[1]) if len(means) > 1 else ():
        draws_SR = np.stack([own.draws_RM[:, at] for own in means])
        draws_SR = draws_SR[:, ~np.isnan(draws_SR).any(axis=0)]
        if draws_SR.size and min(own.n_M[at] for own in means) >= FEW:
            limits_S = [(float(low[at]), float(high[at])) for low, high in alone]
            over = over_seeds([float(own.value_M[at]) for own in means], draws_SR, limits_S)
            found_2M[:, at] = over.both_low, over.both_high
    return found_2M[0], found_2M[1]


def _mean_of(figures: Sequence[Floats]) -> Floats:
    """The mean of several figures of the same images, of those that an image has; NaN where it has none."""
    has_TN = ~np.isnan(figures)
    count_N, sum_N = has_TN.sum(axis=0), np.where(has_TN, figures, 0.0).sum(axis=0)
    found: Floats = np.divide(sum_N, count_N, out=np.full(len(sum_N), np.nan), where=count_N > 0)
    return found
