"""What a run would do, before it does it: what is there, what is missing, how long that takes, and what it leaves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.speeds import Speeds
from pipelines.storage.chunked_table import ChunkedTable, Listing

# A row of predictions (image id, label, prediction, confidence) is smaller than this in every table.
_BYTES_OF_A_PREDICTION = 40


@dataclass(frozen=True)
class Part:
    """A part of the work: chunks there of all, and what is missing.

    Attributes:
        name: surrogate and attack that are crafted, or whose images are shown; or `clean` images.
        tables, chunks, done: how many there are; `units`: images to craft, or predictions to make.
        seconds: of one worker; None where a rate was never measured.
    """

    stage: str
    name: str
    tables: int
    chunks: int
    done: int
    units: int
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """Of a whole experiment.

    Attributes:
        missing_networks: to be trained or aligned first. parts: crafting and evaluation.
        workers: by stage. files, bytes: in the store now. tables: files of tables in the end.
        most_bytes: of these, uncompressed.
    """

    missing_networks: list[str]
    parts: list[Part]
    workers: dict[str, int]
    files: int
    bytes: int
    tables: int
    most_bytes: int

    def seconds(self, stage: str) -> float | None:
        """How long a stage takes with its workers; None where a rate was never measured."""
        wanted = [part for part in self.parts if part.stage == stage and part.units]
        if any(part.seconds is None for part in wanted):
            return None
        return sum(part.seconds or 0.0 for part in wanted) / self.workers[stage]

    def lines(self) -> list[str]:
        """For people: the sums, then every part that is not done."""
        networks = ", ".join(self.missing_networks)
        lines = [f"align     to be made first: {networks}" if networks else "align     every network is there"]
        lines += [self._sum(stage, unit) for stage, unit in (("craft", "images"), ("evaluate", "predictions"))]
        lines.append(
            f"files     {self.files:,} now ({_size(self.bytes)}); in the end {self.tables:,} tables of at most "
            f"{_size(self.most_bytes)}, and a file per chunk for those that are under way"
        )
        for part in self.parts:
            if part.done < part.chunks:
                cost = "no rate yet" if part.seconds is None else f"{_time(part.seconds)} of one worker"
                lines.append(f"  {part.stage:8} {part.name}: {part.done:,} of {part.chunks:,} chunks there; {cost}")
        return lines

    def _sum(self, stage: str, unit: str) -> str:
        parts = [part for part in self.parts if part.stage == stage]
        tables, chunks, done, units = (sum(getattr(p, n) for p in parts) for n in ("tables", "chunks", "done", "units"))
        line = f"{stage:9} {done:,} of {chunks:,} chunks of {tables:,} tables there"
        if not units:
            return line
        seconds, workers = self.seconds(stage), self.workers[stage]
        plural = "s" if workers > 1 else ""
        time = (
            "no rate was measured yet" if seconds is None else f"about {_time(seconds)} with {workers} worker{plural}"
        )
        return f"{line}; {units:,} {unit} to make, {time}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "seconds": {stage: self.seconds(stage) for stage in self.workers}}


def forecast(request: Request) -> Forecast:
    """What is there and what is missing, from the settings and one listing of the store. Raises InputError."""
    return forecast_of(open_blueprint(request))


def forecast_of(blueprint: Blueprint) -> Forecast:
    """The same of a plan; writes nothing."""
    listing, compute = blueprint.store.listing(), blueprint.experiment.compute
    speeds, images = Speeds(blueprint), sum(blueprint.rows)
    parts, pixels = [], _bytes_of_an_image(blueprint)
    clean = list(blueprint.clean().values())
    parts.append(_evaluated(blueprint, speeds, listing, "clean images", clean))
    predictions = blueprint.outcomes()
    for (surrogate, attack), own in predictions.items():
        table = blueprint.adversarial(blueprint.by_name[surrogate], attack)
        missing = _missing(blueprint, table, listing)
        rate = speeds.seconds("gradient", blueprint.by_name[surrogate].members)
        gradients = blueprint.experiment.attacks[attack].gradients
        seconds = None if rate is None else rate * gradients * missing
        parts.append(_part(blueprint, "craft", f"{surrogate} {attack}", [table], listing, missing, seconds))
        parts.append(_evaluated(blueprint, speeds, listing, f"{surrogate} {attack}", own))
    files, size = blueprint.store.usage()
    crafted = len(predictions)
    predicted = len(clean) + sum(map(len, predictions.values()))
    return Forecast(
        missing_networks=blueprint.missing("align"),
        parts=parts,
        workers={stage: getattr(compute, stage).workers or compute.workers for stage in ("craft", "evaluate")},
        files=files,
        bytes=size,
        tables=crafted + predicted,
        most_bytes=images * (crafted * pixels + predicted * _BYTES_OF_A_PREDICTION),
    )


def _bytes_of_an_image(blueprint: Blueprint) -> int:
    channels, height, width = blueprint.inspected.shape
    return channels * height * width


def _evaluated(
    blueprint: Blueprint,
    speeds: Speeds,
    listing: Listing,
    name: str,
    predictions: Sequence[Predictions],
) -> Part:
    units, seconds = 0, 0.0
    is_known = True
    for members, table in predictions:
        missing = _missing(blueprint, table, listing)
        rate = speeds.seconds("prediction", members) if missing else 0.0
        is_known = is_known and rate is not None
        units += missing
        seconds += missing * (rate or 0.0)
    return _part(
        blueprint, "evaluate", name, [table for _, table in predictions], listing, units, seconds if is_known else None
    )


def _part(
    blueprint: Blueprint,
    stage: str,
    name: str,
    tables: Sequence[ChunkedTable],
    listing: Listing,
    units: int,
    seconds: float | None,
) -> Part:
    each = len(blueprint.rows)
    done = [each if table.is_finished(listing) else len(table.done_chunks(listing)) for table in tables]
    return Part(stage, name, len(done), each * len(done), sum(done), units, seconds)


def _missing(blueprint: Blueprint, table: ChunkedTable, listing: Listing) -> int:
    """Images that a table lacks."""
    if table.is_finished(listing):
        return 0
    return sum(blueprint.rows) - sum(blueprint.rows[chunk] for chunk in table.done_chunks(listing))


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
