"""The check of the tables of reasons: whether each is whole and of this sample, and some values measured again."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from align_core.errors import reason_of
from align_core.model_config import Precision
from pipelines.failure import RunFailed
from pipelines.progress import Progress
from pipelines.report.outcomes import read_table
from pipelines.run.verification import UNREADABLE, Repetition, Verification, problem_of_settings
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.stages.measurings import SOFT, Measuring, Sample
from pipelines.stages.reasons import Measurer, ReasonsItem, ReasonsJob, read_both, reasons_job
from pipelines.storage.chunked_table import ChunkedTable

# By what share of the largest value among the images drawn a reason may differ on other hardware or in another batch:
# networks run in float32, which a GPU rounds with tf32. Folding a ResNet-20 moves values by 2e-5 at most, and those
# that an ascent finds, of which single steps may lead elsewhere, by 1e-2.
_TOLERANCE: dict[Precision, float] = {"fp32": 0.01, "tf32": 0.05, "bf16": 0.01}
_SOUGHT, _SOUGHT_TIMES = "largest_linearity", 5
_FLIPS = 0.1  # the share of the images on which yes and no may be exchanged, as near ties are


class ReasonVerifier:
    """Checks every table of reasons of one finished experiment; `run` does all of it.

    Args:
        blueprint: the experiment.
        repetition: of what is computed again, and by which networks.
        found: takes the findings and counts.
    """

    def __init__(self, blueprint: Blueprint, repetition: Repetition, found: Verification) -> None:
        self.blueprint, self.again, self.found = blueprint, repetition, found
        self.drawn = repetition.draw(len(blueprint.sample.positions))
        manifest = blueprint.inspected.manifests["test"]
        self._ids = [manifest.ids[position] for position in blueprint.sample.positions]
        self._labels = [int(manifest.labels[position]) for position in blueprint.sample.positions]

    def run(self, progress: Progress) -> None:
        """Reads every table, and measures all surrogates again on the images drawn."""
        tables = self.blueprint.reasons()
        if not tables:
            return
        read = {table.folder: rows for table in tables.values() if (rows := self._read(table)) is not None}
        measurer = Measurer(self._job(), self.again.networks)
        if self.drawn:
            with progress.stage("verify reasons", len(self.drawn) * len(read), "rows") as bar:
                for number, one in enumerate(measurer.job.measurings):
                    self._measure(measurer, number, one, read)
                    bar.advance(len(self.drawn) * sum(own.table.folder in read for own in one.measured))
        if len(self.drawn) < len(self._ids):
            every = f"all but {len(self.drawn)}" if self.drawn else "all"
            self.found.trusted.append(f"the reasons of {every} of the {len(self._ids):,} images of their sample")

    def _read(self, table: ChunkedTable) -> pa.Table | None:
        """The rows of a table; None, reported, where it is damaged or of something else."""
        self.found.checked["tables"] += 1
        try:
            rows = read_table(self.blueprint.store, table, None)
            problem = self._problem_of(table, rows)
        except (*UNREADABLE, RunFailed) as raised:
            problem = f"cannot be read ({reason_of(raised)})"
        if problem:
            self.found.report(f"{table.folder}: {problem}")
            return None
        self.found.checked["rows"] += len(self._ids)
        return rows

    def _problem_of(self, table: ChunkedTable, rows: pa.Table) -> str | None:
        sizes, about = self.blueprint.sample.rows, table.about(self.blueprint.store)
        if problem := problem_of_settings(table, about):
            return problem
        if about.get("rows") != sizes or about["groups"] != sizes:
            there = f"{sum(about['groups'])} rows in {len(about['groups'])} chunks"
            return f"holds {there}, which are not those of the sample"
        if rows["image_id"].to_pylist() != self._ids or rows["label"].to_pylist() != self._labels:
            return "does not hold the images, or the labels, of the sample"
        return None

    def _job(self) -> ReasonsJob:
        """The work of a measurer whose sample are the images drawn, in one chunk."""
        compute = self.blueprint.experiment.compute
        job = reasons_job(self.blueprint, "cpu", compute.threads, compute.patience)
        every, one = job.images, [range(len(self.drawn))]
        images = replace(
            every,
            image_ids=[every.image_ids[row] for row in self.drawn],
            labels=[every.labels[row] for row in self.drawn],
            contents=[every.contents[row] for row in self.drawn],
            chunks=one,
        )
        return replace(job, images=images, sample=Sample([job.sample.positions[row] for row in self.drawn], one))

    def _measure(self, measurer: Measurer, number: int, one: Measuring, read: dict[str, pa.Table]) -> None:
        """Measures a surrogate, or soft labels, and everything that it is compared with."""
        networks = set() if one.surrogate == SOFT else set(measurer.job.members[one.surrogate])
        wanted = [own for own in one.measured if own.table.folder in read]
        wanted = [own for own in wanted if not self.again.unreadable & {*networks, own.other}]
        if not wanted:
            return
        try:
            on_chunk = measurer.on_chunk(read_both(measurer.job, ReasonsItem(number=number, chunk=0, lacking="")))
        except (*UNREADABLE, RunFailed) as problem:
            self.found.report(f"{wanted[0].table.folder}: its images cannot be read ({reason_of(problem)})")
            return
        for other, table in wanted:
            try:
                measured = on_chunk.measured(other)
            except Exception as problem:  # of the user's code
                whose = one.surrogate if other == SELF else other
                self.found.report(f"{table.folder}: {whose} cannot be measured again ({reason_of(problem)})")
                continue
            now = {column: np.asarray(values_B.cpu().numpy()) for column, values_B in measured.items()}
            self._compare(table, read[table.folder].take(self.drawn), now)

    def _compare(self, table: ChunkedTable, rows: pa.Table, now: dict[str, npt.NDArray[np.generic]]) -> None:
        """Compares the stored values of the images drawn with those measured now."""
        if set(rows.column_names) != {"image_id", "label", *now}:
            self.found.report(f"{table.folder}: its columns are not those that are measured")
            return
        self.found.checked["reasons measured again"] += len(rows) * len(now)
        share = _TOLERANCE[self.blueprint.experiment.compute.precision]
        ids = rows["image_id"].to_pylist()
        for column, values_B in now.items():
            try:
                was_B = np.asarray(rows[column].cast(pa.float64()).fill_null(np.nan).to_numpy())
            except pa.ArrowException as problem:
                self.found.report(f"{table.folder}: {column} holds no numbers ({reason_of(problem)})")
                continue
            if values_B.dtype == np.bool_:
                differ_B = was_B != values_B
                is_other = int(differ_B.sum()) > _FLIPS * len(ids)
            else:
                largest = np.nanmax(np.abs(values_B.astype(np.float64)), initial=0.0)
                most = share * largest * (_SOUGHT_TIMES if column.startswith(f"{_SOUGHT}/") else 1)
                differ_B = ~np.isclose(was_B, values_B.astype(np.float64), rtol=0, atol=most, equal_nan=True)
                is_other = bool(differ_B.any())
            if is_other:
                wrong = [name for name, differs in zip(ids, differ_B.tolist(), strict=True) if differs]
                self.found.report(_finding(table, column, wrong, len(ids)))


def _finding(table: ChunkedTable, column: str, wrong: Sequence[str], drawn: int) -> str:
    return f"{table.folder}: {column} of {len(wrong)} of {drawn} images is measured differently now: " + ", ".join(
        wrong[:3]
    )
