"""When the work of an experiment took place, from what its files say: MLflow shows it as the duration of runs."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pipelines.experiment.surrogates import Surrogate
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.times import CraftingTimes
from pipelines.storage.csv_table import from_csv

# How every line of a log begins (`pipelines.progress`), such as `2026-11-26 12:20:56Z `.
_LINE = re.compile(r"^(\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2})Z ", re.MULTILINE)


class Span(NamedTuple):
    """The begin and end of some work, in seconds since 1970; None where no file says it."""

    began: float | None
    ended: float | None


class Spans:
    """The times of an experiment and its surrogates.

    Begin and end of the whole are those of its logs. A surrogate begins with the first step of its fine-tune, or with
    its first attack, and ends with its last outcome. What was copied has later times of files, so that none counts that
    is after the last log.

    Args:
        blueprint: of the experiment.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._crafting = CraftingTimes(blueprint.store)
        self._modified = blueprint.store.modified("adversarial") | blueprint.store.modified("outcomes")
        self.whole = self._of_logs()

    def of(self, surrogates: Sequence[Surrogate]) -> Span:
        """The span of a surrogate, or of all its seeds together."""
        begins = [began for own in surrogates if (began := self._begin(own)) is not None]
        ends = [ended for own in surrogates if (ended := self._end(own)) is not None]
        return Span(min(begins, default=None), max(ends, default=None))

    def _of_logs(self) -> Span:
        store, found = self._blueprint.store, list[float]()
        for name in sorted(store.listing("logs").get("logs", [])):
            lines = _LINE.findall(store.read(f"logs/{name}").decode(errors="replace"))
            found += [datetime.fromisoformat(line).replace(tzinfo=UTC).timestamp() for line in lines]
        return Span(min(found, default=None), max(found, default=None))

    def _begin(self, surrogate: Surrogate) -> float | None:
        curves = f"models/{surrogate.name}/curves.csv"
        if surrogate.align is not None:
            return float(from_csv(self._blueprint.store.read(curves))[0]["timestamp"])
        begins = []
        for attack in self._blueprint.experiment.attacks:
            table = self._blueprint.adversarial(surrogate, attack)
            written = self._modified.get(table.finished_file)
            if written is not None:
                begins.append(written - sum(spent.seconds for spent in self._crafting.of(table.fingerprint)))
        begin = min(begins, default=None)
        if begin is None or self.whole.began is None or self.whole.ended is None:
            return begin
        return min(max(begin, self.whole.began), self.whole.ended)

    def _end(self, surrogate: Surrogate) -> float | None:
        cells = [cell for cell in self._blueprint.cells() if cell.surrogate == surrogate.name]
        written = [self._modified[file] for cell in cells if (file := cell.table.finished_file) in self._modified]
        end = max(written, default=None)
        return end if end is None or self.whole.ended is None else min(end, self.whole.ended)
