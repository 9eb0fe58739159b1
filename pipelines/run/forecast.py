"""Says what a run would do before it does it: what is missing, how long it takes, and how much space it needs.

It follows from the settings, one listing of the store, and the rates that earlier runs measured; nothing is computed
and nothing is written.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from align_core.align_config import training_on_labels
from align_core.refinements.cost import passes_per_image
from pipelines.compute.cluster import works_here
from pipelines.experiment.surrogates import series_of
from pipelines.run.request import Request, check_cache_at_once, naming_its_file, open_blueprint
from pipelines.run.sizes import size_text
from pipelines.run.worker_memory import WorkerMemory, worker_memory
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cache_folder import check_cache
from pipelines.stages.cells import SELF, Predictions
from pipelines.stages.done_chunks import done_chunks
from pipelines.stages.inspect_published import Published
from pipelines.stages.measurings import COMPARED_GRADIENTS, OWN_GRADIENTS, SOFT, Measuring
from pipelines.stages.notes import not_there, notes_on
from pipelines.stages.speeds import Kind, Speeds
from pipelines.storage.chunked_table import ChunkedTable

# Upper bound for a row of image id, label, prediction and confidence in a Parquet file.
_BYTES_OF_A_PREDICTION = 40
# The same for the reasons of one image, of which a surrogate's own have the most columns.
_BYTES_OF_REASONS = 400


@dataclass(frozen=True)
class Part:
    """A part of the work of one stage, and how much of it is missing.

    Attributes:
        stage: `craft`, `evaluate` or `reasons`.
        name: the surrogate and attack whose images are crafted or evaluated, or `clean images`; of reasons, the
            surrogate, or `@soft` for the witnesses' soft labels.
        of: the same without the attack.
        tables: number of tables of this part.
        chunks: number of chunks of these tables.
        done: number of chunks that are finished.
        units: number of images to craft, of predictions to make, or of images to measure, each for every table.
        gradients: number of gradients that crafting `units` takes; None where it is unknown until it is measured.
        seconds: the time of one worker for `units`; None if the rate has not been measured.
    """

    stage: str
    name: str
    of: str
    tables: int
    chunks: int
    done: int
    units: int
    gradients: int | None
    seconds: float | None

    def line(self) -> str:
        """The line that `witness plan --cells` prints for an unfinished part."""
        time = "time unknown" if self.seconds is None else f"{time_text(self.seconds)} for one worker"
        return f"  {self.stage:8} {self.name}: {self.done:,} of {self.chunks:,} chunks finished; {time}"


@dataclass(frozen=True)
class FineTune:
    """A network that has to be trained or aligned.

    Attributes:
        stage: `train` or `align`.
        name: of the model or surrogate.
        steps: number of updates.
        seconds: how long they take its workers; None if the rate has not been measured.
    """

    stage: str
    name: str
    steps: int
    seconds: float | None

    def line(self) -> str:
        """The line that `witness plan --cells` prints."""
        time = "time unknown" if self.seconds is None else f"about {time_text(self.seconds)}"
        return f"  {self.stage:8} {self.name}: {_steps(self.steps)}; {time}"


@dataclass(frozen=True)
class Forecast:
    """What a run of a whole experiment would do.

    Attributes:
        networks: the networks that have to be trained or aligned first.
        parts: the work of crafting, evaluation and reasons, part by part.
        workers: number of workers of each stage.
        files: number of files that the experiment has now.
        bytes: their size.
        tables: number of tables that a finished experiment has, each in one file.
        most_bytes: upper bound of their size; images are counted uncompressed.
        published: where networks are used otherwise than they are published.
        gradients: of each attack, per image and surrogate; None where it is unknown until it is measured.
        notes: what cannot be made, what memory does not hold, and what a run would say of its images, models and
            attacks, `published` included, a line each.
        chunk_files: upper bound of the files that hold single chunks while tables are being filled: one for the images
            of a surrogate and attack, and one for all that networks predict on some images in a turn.
        memory: what a worker of each stage takes.
        holes: what cannot be made, each with the reason.
    """

    networks: list[FineTune]
    parts: list[Part]
    workers: dict[str, int]
    files: int
    bytes: int
    tables: int
    most_bytes: int
    published: Published
    gradients: dict[str, int | None]
    notes: list[str]
    chunk_files: int
    memory: list[WorkerMemory] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)

    @property
    def missing_networks(self) -> list[str]:
        """The networks that have to be trained or aligned before anything can be crafted, in that order."""
        return [network.name for network in self.networks]

    def seconds(self, stage: str) -> float | None:
        """How long the rest of a stage takes all its workers; None if a rate that it needs has not been measured.

        For `align`, how long all trainings and alignments take one after another: how many of them fit side by side is
        only known on the cluster.
        """
        total = 0.0
        if stage == "align":
            times = [network.seconds for network in self.networks]
            return None if None in times else sum(filter(None, times))
        for part in self.parts:
            if part.stage == stage and part.units:
                if part.seconds is None:
                    return None
                total += part.seconds
        return total / self.workers[stage]

    def lines(self) -> list[str]:
        """The lines that `witness plan --cells` prints: totals, every part that is not finished, and notes."""
        parts = [part.line() for part in self.parts if part.done < part.chunks]
        return [*self.totals(), *(network.line() for network in self.networks), *parts, *self.notes]

    def totals(self) -> list[str]:
        """A line for each stage, and for files, times and attacks."""
        return [
            self._total_of_networks(),
            self._total("craft", "images"),
            self._total("evaluate", "predictions"),
            *([self._total("reasons", "measurements")] if "reasons" in self.workers else []),
            f"files     {self.files:,} now ({size_text(self.bytes)}); {self.tables:,} tables of at most "
            f"{size_text(self.most_bytes)} when finished, and up to {self.chunk_files:,} more of single chunks until "
            "then",
            *(["memory    " + ", ".join(own.line for own in self.memory)] if self.memory else []),
            *(["times     leave out the start of processes, some 10 s for each stage"] if self._has_work else []),
            "attacks   gradients per image: "
            + ", ".join(f"{name} {_gradients(count)}" for name, count in self.gradients.items()),
        ]

    @property
    def _has_work(self) -> bool:
        return bool(self.networks) or any(part.units for part in self.parts)

    def _total_of_networks(self) -> str:
        if not self.networks:
            return f"align     {'no network is left to make' if self.holes else 'every network is made'}"
        seconds, steps = self.seconds("align"), sum(network.steps for network in self.networks)
        time = "time unknown until a run has measured the rates"
        if seconds is not None:
            time = f"about {time_text(seconds)} one after another, less where there is room for several"
        series = Counter(series_of(name) for name in self.missing_networks)
        names = ", ".join(name if count == 1 else f"{name} x {count}" for name, count in series.items())
        return f"align     networks to make first: {names}; {_steps(steps)}, {time}"

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
            time = f"about {time_text(seconds)} with {workers} worker{plural}"
        return f"{line}; {units:,} {unit} to make, {time}"

    def as_json(self) -> dict[str, Any]:
        """The object that `witness plan --json` prints."""
        seconds = {stage: self.seconds(stage) for stage in ("align", *self.workers)}
        return {**asdict(self), "missing_networks": self.missing_networks, "seconds": seconds}


def make_forecast(request: Request) -> Forecast:
    """Forecasts what `witness run` would do for a request. Raises InputError if the experiment is not valid."""
    experiment = request.experiment()
    check_cache_at_once(request, experiment)
    blueprint = open_blueprint(request, experiment=experiment)
    if blueprint.missing("align"):
        with naming_its_file(request):
            check_cache(experiment, works_here(request.address, experiment.compute))
    return forecast_of(blueprint)


def forecast_of(blueprint: Blueprint) -> Forecast:
    """Forecasts a run of an experiment whose inputs have been inspected already."""
    compute, outcomes = blueprint.experiment.compute, blueprint.outcomes()
    clean = list(blueprint.clean().values())
    estimator = _Estimator(blueprint)
    parts = [estimator.evaluation("clean images", clean)]
    if corrupted := list(blueprint.corrupted().values()):
        parts.append(estimator.evaluation("corrupted images", corrupted))
    for (surrogate, attack), images in blueprint.all_adversarial().items():
        parts.append(estimator.crafting(surrogate, attack, images))
        part = estimator.evaluation(f"{surrogate} {attack}", outcomes[surrogate, attack])
        parts.append(replace(part, of=surrogate))
    parts += [estimator.reasons(one) for one in blueprint.measurings]
    memory = worker_memory(blueprint)
    stages = {"craft": compute.craft, "evaluate": compute.evaluate}
    stages |= {"reasons": compute.craft} if blueprint.experiment.reasons else {}
    reasons, sampled = blueprint.reasons(), len(blueprint.sample.positions)
    files, size = blueprint.store.usage()
    channels, height, width = blueprint.inspected.shape
    predicted = len(clean) + len(corrupted) + sum(map(len, outcomes.values()))
    bytes_per_image = len(outcomes) * channels * height * width + predicted * _BYTES_OF_A_PREDICTION
    return Forecast(
        networks=[estimator.fine_tune(name) for name in blueprint.missing("align")],
        parts=parts,
        workers={stage: own.workers or compute.workers for stage, own in stages.items()},
        files=files,
        bytes=size,
        tables=len(outcomes) + predicted + len(reasons),
        most_bytes=sum(blueprint.rows) * bytes_per_image + sampled * len(reasons) * _BYTES_OF_REASONS,
        published=blueprint.inspected.published,
        gradients={name: attack.gradients for name, attack in blueprint.experiment.attacks.items()},
        notes=[
            *not_there(blueprint),
            *filter(None, (own.warning() for own in memory)),
            *notes_on(blueprint),
        ],
        holes=blueprint.holes(),
        chunk_files=len(blueprint.rows) * (len(outcomes) + sum(len(one.turns) for one in blueprint.evaluations))
        + len(blueprint.sample.chunks) * len(blueprint.measurings),
        memory=memory,
    )


class _Estimator:
    """Counts what tables lack by one listing of the store, and multiplies it by the rates of earlier runs."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._done, self._speeds = done_chunks(blueprint, blueprint.store.listing()), Speeds(blueprint)
        self._images = len(blueprint.inspected.manifests["test"])

    def fine_tune(self, name: str) -> FineTune:
        """The training of a model, or the alignment of a surrogate, whether or not its source is there."""
        blueprint, images = self._blueprint, len(self._blueprint.inspected.manifests["train"])
        if name in blueprint.by_name:
            surrogate = blueprint.by_name[name]
            stage, align, members = "align", surrogate.align, (surrogate.source, *surrogate.witnesses)
        else:
            train = blueprint.experiment.models[name].train
            stage, align, members = "train", None if train is None else training_on_labels(train), (name,)
        assert align is not None, f"{name} is not made here"
        steps, rate = align.steps(images), self._speeds.seconds("training", members)
        passes = passes_per_image(align, len(members) - 1).total
        seconds = None if rate is None else rate * passes * steps * min(align.batch_size, images) / align.workers
        return FineTune(stage, name, steps, seconds)

    def crafting(self, surrogate: str, attack: str, images: ChunkedTable) -> Part:
        """The crafting of one table of adversarial images."""
        missing = self._missing(images)
        if attack in self._blueprint.experiment.made_elsewhere:  # they are copied
            return replace(self._part("craft", f"{surrogate} {attack}", [images], missing, 0.0), of=surrogate)
        rate = self._speeds.seconds("gradient", self._blueprint.by_name[surrogate].seen_at_once)
        gradients = self._blueprint.experiment.attacks[attack].gradients
        needed = None if gradients is None else gradients * missing
        seconds = None if rate is None or needed is None else rate * needed
        part = self._part("craft", f"{surrogate} {attack}", [images], missing, seconds)
        return replace(part, of=surrogate, gradients=needed)

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

    def reasons(self, one: Measuring) -> Part:
        """What is measured of one surrogate, or of soft labels."""
        rows, units = self._blueprint.sample.rows, 0
        seconds: float | None = 0.0
        for other, table in one.measured:
            done = self._done[table.folder]
            missing = sum(count for chunk, count in enumerate(rows) if chunk not in done)
            units += missing
            rate = self._rate_of_reasons(one.surrogate, other) if missing else 0.0
            seconds = None if seconds is None or rate is None else seconds + missing * rate
        tables = [own.table for own in one.measured]
        return self._part("reasons", one.surrogate, tables, units, seconds, len(rows))

    def _rate_of_reasons(self, surrogate: str, other: str) -> float | None:
        """Seconds per image, as they were measured or else as the gradients in it take them."""
        if surrogate == SOFT:
            return self._speeds.seconds("prediction", (other,))
        own = self._blueprint.by_name[surrogate].members if other == SELF else (other,)
        kind: Kind = "reasons" if other == SELF else "comparison"
        measured, gradient = self._speeds.seconds(kind, own), self._speeds.seconds("gradient", own)
        if measured is not None or gradient is None:
            return measured
        return gradient * (OWN_GRADIENTS if other == SELF else COMPARED_GRADIENTS)

    def _part(
        self,
        stage: str,
        name: str,
        tables: Sequence[ChunkedTable],
        units: int,
        seconds: float | None,
        chunks: int | None = None,
    ) -> Part:
        """A part without gradients, whose tables have as many chunks as the test images, or another number."""
        done, each = sum(len(self._done[own.folder]) for own in tables), chunks or len(self._blueprint.rows)
        return Part(stage, name, name, len(tables), each * len(tables), done, units, gradients=0, seconds=seconds)

    def _missing(self, table: ChunkedTable) -> int:
        """Number of rows that a table lacks."""
        rows, done = self._blueprint.rows, self._done[table.folder]
        return 0 if len(done) == len(rows) else self._images - sum(rows[chunk] for chunk in done)


def _gradients(count: int | None) -> str:
    return "unknown until it is measured" if count is None else f"{count:,}"


def _steps(count: int) -> str:
    return f"{count:,} step" if count == 1 else f"{count:,} steps"


def time_text(seconds: float) -> str:
    """A time as `witness plan` prints it."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
