"""The rows of the report's tables for an experiment with several seeds: one row from those of each seed."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from align_core.seeds import OverSeeds, over_seeds
from pipelines.report.p_values import corrected, p_value
from pipelines.report.rounding import figure
from pipelines.report.rows import ContrastRow, SeedRow, SurrogateRow, TimeRow, TransferRow
from pipelines.report.tables import TableMaker

Row = Mapping[str, Any]
Draws = npt.NDArray[np.float64]
"""A rate or a gain in each resample of the images, [R]."""


_LIMITS = {"targeted_rate": ("targeted_low", "targeted_high")}
"""Columns whose interval is not in columns of their own name."""


class TablesOverSeeds:
    """The tables of an experiment with several seeds, from those in which every seed is a surrogate by itself.

    A row that not every seed has is left out, and a figure that not every seed has is blank: means over fewer seeds
    could not be compared.
    """

    def __init__(self, maker: TableMaker) -> None:
        self.maker, self._transfer, self._surrogates = maker, maker.transfer(), maker.surrogates()
        self.by_name, self.count = maker.blueprint.by_name, len(maker.blueprint.experiment.seeds)

    def transfer(self) -> list[TransferRow]:
        """The rows of transfer.csv: means over the seeds, and the spread between them."""
        rows = [self._transfer_row(own) for own in self._whole(self._transfer, "attack", "target")]
        return corrected([cast(TransferRow, row) for row in rows])

    def contrasts(self) -> list[ContrastRow]:
        """The rows of contrasts.csv: of a pair, both have the same seed."""
        found = []
        for rows in self._whole(self.maker.contrasts(), "baseline", "attack", "target"):
            names = {name: self.by_name[rows[0][name]].series for name in ("surrogate", "baseline")}
            found.append(
                {**rows[0], **names, "seeds": len(rows), **self._gain(rows, [own["baseline"] for own in rows])}
            )
        return corrected([cast(ContrastRow, row) for row in found])

    def surrogates(self) -> list[SurrogateRow]:
        """The rows of surrogates.csv: the mean over the seeds of each figure, and of each limit of its interval."""
        found = []
        for rows in self._whole(self._surrogates, "attack"):
            spread = float(np.std([row["clean_accuracy"] for row in rows], ddof=1))
            means = {column: self._mean(rows, column) for column in rows[0]}
            found.append({**means, "surrogate": self._series(rows), "clean_spread": figure(spread)})
        return [cast(SurrogateRow, row) for row in found]

    def seeds(self) -> list[SeedRow]:
        """The rows of seeds.csv: what each seed gave by itself."""
        accuracy = {row["surrogate"]: row["clean_accuracy"] for row in self._surrogates}
        found = []
        for row in self._transfer:
            own = self.by_name[row["surrogate"]]
            further = {"surrogate": own.series, "seed": own.seed, "clean_accuracy": accuracy.get(own.name)}
            every: dict[str, Any] = {**row, **further}
            found.append(cast(SeedRow, {column: every[column] for column in SeedRow.__annotations__}))
        return found

    def times(self) -> list[TimeRow]:
        """The rows of times.csv: what all seeds took together."""
        found = []
        for rows in self._of_series(self.maker.times(), "attack", "worker"):
            images, seconds = (sum(row[column] for row in rows) for column in ("images", "seconds"))
            speed = {"images": images, "seconds": round(seconds, 3), "images_per_second": round(images / seconds, 3)}
            found.append({**rows[0], "surrogate": self._series(rows), **speed})
        return [cast(TimeRow, row) for row in found]

    def _transfer_row(self, rows: Sequence[Row]) -> dict[str, Any]:
        rate = self._over(rows, "rate", [self._rate_draws("wrong", row) for row in rows])
        targeted = self._over(rows, "targeted_rate", [self._rate_draws("hit", row) for row in rows])
        return {
            **rows[0],
            "surrogate": self._series(rows),
            "n": min(row["n"] for row in rows),  # 0 of a mean that one seed has not
            "gradients": self._mean(rows, "gradients"),
            "seeds": len(rows),
            "rate_all": self._mean(rows, "rate_all"),
            **_shown(rate, rate="value", rate_low="low", rate_high="high", rate_spread="spread"),
            **_shown(targeted, targeted_rate="value", targeted_low="low", targeted_high="high"),
            **self._gain(rows, [self.by_name[row["surrogate"]].baseline for row in rows]),
        }

    def _gain(self, rows: Sequence[Row], baselines: Sequence[str]) -> dict[str, float | None]:
        """The columns about the gain of each seed's surrogate over that seed's baseline."""
        draws = [
            None
            if row["gain"] is None
            else self.maker.gain_draws(row["surrogate"], other, row["attack"], row["target"])
            for row, other in zip(rows, baselines, strict=True)
        ]
        gain = self._over(rows, "gain", draws)
        is_mean = rows[0]["target"].startswith("(mean")
        return {
            **_shown(gain, gain="value", gain_low="low", gain_high="high", gain_spread="spread"),
            **_shown(gain, gain_both_low="both_low", gain_both_high="both_high"),
            "p_value": None if gain is None or is_mean else p_value(gain.p_value),
            "p_holm": None,
        }

    def _rate_draws(self, outcome: Any, row: Row) -> Draws | None:
        return self.maker.rate_draws(outcome, row["surrogate"], row["attack"], row["target"])

    def _over(self, rows: Sequence[Row], column: str, draws: Sequence[Draws | None]) -> OverSeeds | None:
        """A column over all seeds; None where one of them has no figure."""
        values = [row[column] for row in rows if row[column] is not None]
        known = [own for own in draws if own is not None]
        if min(len(values), len(known)) < self.count:
            return None
        low, high = _LIMITS.get(column, (f"{column}_low", f"{column}_high"))
        return over_seeds(values, np.stack(known), [(row[low], row[high]) for row in rows])

    def _mean(self, rows: Sequence[Row], column: str) -> Any:
        """The mean of a column over all seeds; None where one has no figure, and of text what the first has."""
        values = [row[column] for row in rows]
        if isinstance(values[0], str):
            return values[0]
        if None in values:
            return None
        mean = float(np.mean(values))
        return round(mean) if all(isinstance(value, int) for value in values) else figure(mean)

    def _whole(self, rows: Sequence[Any], *columns: str) -> list[list[Row]]:
        """The rows that differ in their seed alone, where every seed has one."""
        return [own for own in self._of_series(rows, *columns) if len(own) == self.count]

    def _of_series(self, rows: Sequence[Any], *columns: str) -> list[list[Row]]:
        """The rows that differ in their seed alone, in the order in which the first of each comes."""
        found: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            key = tuple(self._series([row], column) for column in ("surrogate", *columns))
            found.setdefault(key, []).append(row)
        return list(found.values())

    def _series(self, rows: Sequence[Row], column: str = "surrogate") -> str:
        """What stands in a column of the first of these rows; of a surrogate its name without its seed."""
        value = str(rows[0][column])
        return self.by_name[value].series if column in ("surrogate", "baseline") else value


def _shown(over: OverSeeds | None, **columns: str) -> dict[str, float | None]:
    """Columns of a table, and the field of `OverSeeds` that each of them shows."""
    return {column: None if over is None else figure(getattr(over, name)) for column, name in columns.items()}
