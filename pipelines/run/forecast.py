"""Says what a run would do before it does it: what is missing, how long it takes, and how much space it needs.

It follows from the settings, one listing of the store, and the rates that earlier runs measured; nothing is computed
and nothing is written.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.inspect_published import Published
from pipelines.stages.speeds import Speeds
from pipelines.storage.chunked_table import ChunkedTable

# Upper bound for a row of image id, label, prediction and confidence in a Parquet file.
_BYTES_OF_A_PREDICTION = 40


@dataclass(frozen=True)
class Part:
    """A part of the work of one stage, and how much of it is missing.

    Attributes:
        stage: `craft` or `evaluate`.
        name: the surrogate and attack whose images are crafted or evaluated, or `clean images`.
        tables: number of tables of this part.
        chunks: number of chunks of these tables.
        done: number of chunks that are finished.
        units: number of images to craft, or of predictions to make.
        seconds: the time of one worker for `units`; None if the rate has not been measured.
    """

    stage: str
    name: str
    tables: int
    chunks: int
    done: int
    units: int
    seconds: float | None

    def line(self) -> str:
        """The line that `witness plan` prints for an unfinished part."""
        time = "time unknown" if self.seconds is None else f"{_time(self.seconds)} for one worker"
        return f"  {self.stage:8} {self.name}: {self.done:,} of {self.chunks:,} chunks finished; {time}"


@dataclass(frozen=True)
class Forecast:
    """What a run of a whole experiment would do.

    Attributes:
        missing_networks: names of the networks that have to be trained or aligned first.
        parts: the work of crafting and evaluation, part by part.
        workers: number of workers of each stage.
        files: number of files that the experiment has now.
        bytes: their size.
        tables: number of tables that a finished experiment has, each in one file.
        most_bytes: upper bound of their size; images are counted uncompressed.
        published: where networks are used otherwise than they are published.
    """

    missing_networks: list[str]
    parts: list[Part]
    workers: dict[str, int]
    files: int
    bytes: int
    tables: int
    most_bytes: int
    published: Published

    def seconds(self, stage: str) -> float | None:
        """How long the rest of a stage takes all its workers; None if a rate that it needs has not been measured."""
        total = 0.0
        for part in self.parts:
            if part.stage == stage and part.units:
                if part.seconds is None:
                    return None
                total += part.seconds
        return total / self.workers[stage]

    def lines(self) -> list[str]:
        """The lines that `witness plan` prints: totals, then every part that is not finished."""
        networks = ", ".join(self.missing_networks)
        return [
            f"align     {f'networks to make first: {networks}' if networks else 'every network is made'}",
            self._total("craft", "images"),
            self._total("evaluate", "predictions"),
            f"files     {self.files:,} now ({_size(self.bytes)}); {self.tables:,} tables of at most "
            f"{_size(self.most_bytes)} when finished, and one more file per chunk while a table is being filled",
            *(part.line() for part in self.parts if part.done < part.chunks),
            *self.published.lines(),
        ]

    def _total(self, stage: str, unit: str) -> str:
        parts = [part for part in self.parts if part.stage == stage]
        tables, chunks, done, units = (sum(getattr(p, n) for p in parts) for n in ("tables", "chunks", "done", "units"))
        line = f"{stage:9} {done:,} of {chunks:,} chunks of {tables:,} tables finished"
        if not units:
            return line
        seconds, workers = self.seconds(stage), self.workers[stage]
        plural = "s" if workers > 1 else ""
        time = "time unknown until a run has measured the rate"
        if seconds is not None:
            time = f"about {_time(seconds)} with {workers} worker{plural}"
        return f"{line}; {units:,} {unit} to make, {time}"

    def as_json(self) -> dict[str, Any]:
        """The object that `witness plan --json` prints."""
        return {**asdict(self), "seconds": {stage: self.seconds(stage) for stage in self.workers}}


def make_forecast(request: Request) -> Forecast:
    """Forecasts what `witness run` would do for a request. Raises InputError if the experiment is not valid."""
    return forecast_of(open_blueprint(request))


def forecast_of(blueprint: Blueprint) -> Forecast:
    """Forecasts a run of an experiment whose inputs have been inspected already."""
    compute, outcomes = blueprint.experiment.compute, blueprint.outcomes()
    clean = list(blueprint.clean().values())
    estimator = _Estimator(blueprint)
    parts = [estimator.evaluation("clean images", clean)]
    for (surrogate, attack), images in blueprint.all_adversarial().items():
        parts.append(estimator.crafting(surrogate, attack, images))
        parts.append(estimator.evaluation(f"{surrogate} {attack}", outcomes[surrogate, attack]))
    files, size = blueprint.store.usage()
    channels, height, width = blueprint.inspected.shape
    predicted = len(clean) + sum(map(len, outcomes.values()))
    bytes_per_image = len(outcomes) * channels * height * width + predicted * _BYTES_OF_A_PREDICTION
    return Forecast(
        missing_networks=blueprint.missing("align"),
        parts=parts,
        workers={stage: getattr(compute, stage).workers or compute.workers for stage in ("craft", "evaluate")},
        files=files,
        bytes=size,
        tables=len(outcomes) + predicted,
        most_bytes=sum(blueprint.rows) * bytes_per_image,
        published=blueprint.inspected.published,
    )


class _Estimator:
    """Counts what tables lack by one listing of the store, and multiplies it by the rates of earlier runs."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._listing, self._speeds = blueprint.store.listing(), Speeds(blueprint)

    def crafting(self, surrogate: str, attack: str, images: ChunkedTable) -> Part:
        """The crafting of one table of adversarial images."""
        missing = self._missing(images)
        rate = self._speeds.seconds("gradient", self._blueprint.by_name[surrogate].members)
        gradients = self._blueprint.experiment.attacks[attack].gradients
        seconds = None if rate is None else rate * gradients * missing
        return self._part("craft", f"{surrogate} {attack}", [images], missing, seconds)

    def evaluation(self, name: str, predictions: Sequence[Predictions]) -> Part:
        """The predictions of several networks on one set of images."""
        units = 0
        seconds: float | None = 0.0
        for members, table in predictions:
            missing = self._missing(table)
            rate = self._speeds.seconds("prediction", members) if missing else 0.0
            units += missing
            seconds = None if seconds is None or rate is None else seconds + missing * rate
        return self._part("evaluate", name, [own.table for own in predictions], units, seconds)

    def _part(self, stage: str, name: str, tables: Sequence[ChunkedTable], units: int, seconds: float | None) -> Part:
        each, listing = len(self._blueprint.rows), self._listing
        done = [each if table.is_finished(listing) else len(table.done_chunks(listing)) for table in tables]
        return Part(stage, name, len(tables), each * len(tables), sum(done), units, seconds)

    def _missing(self, table: ChunkedTable) -> int:
        """Number of rows that a table lacks."""
        if table.is_finished(self._listing):
            return 0
        rows = self._blueprint.rows
        return sum(rows) - sum(rows[chunk] for chunk in table.done_chunks(self._listing))


def _time(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: int) -> str:
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1000:.0f} kB"
