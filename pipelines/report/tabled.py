"""The tables of a finished experiment as one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.experiment.names import EXTERNAL
from pipelines.report.reason_rows import CorrelationRow, ReasonRow, SoftLabelRow
from pipelines.report.robustness_rows import RobustnessRow
from pipelines.report.rows import COLUMNS, ContrastRow, MeanRow, SeedRow, SurrogateRow, TimeRow, TransferRow


@dataclass(frozen=True)
class Report:
    """The tables of a finished experiment, row by row; a cell that is empty in the CSV file is None.

    Attributes:
        fingerprint: hash of everything that the tables are computed from.
        transfer: how well every surrogate transfers to every target.
        contrasts: aligned surrogates against the controls.
        surrogates: accuracy and robustness of the surrogates themselves.
        robustness: how accurate the surrogates themselves are: clean, attacked, and with common corruptions.
        seeds: what each of several seeds gave by itself; empty where there is one.
        times: how long crafting took. They are measured, so that they differ from run to run.
        reasons: what may explain the gains, of each surrogate. This and the next two are empty unless the experiment
            asks for reasons.
        correlations: which reasons go with the gain, across surrogates.
        soft_labels: what aligned surrogates were taught, by temperature.

    `rows.py` says what each column means.
    """

    fingerprint: str
    transfer: list[TransferRow]
    contrasts: list[ContrastRow]
    surrogates: list[SurrogateRow]
    robustness: list[RobustnessRow]
    seeds: list[SeedRow]
    times: list[TimeRow]
    reasons: list[ReasonRow] = field(default_factory=list)
    correlations: list[CorrelationRow] = field(default_factory=list)
    soft_labels: list[SoftLabelRow] = field(default_factory=list)

    def tables(self) -> dict[str, Sequence[Mapping[str, object]]]:
        """The rows of each table, by the name of its CSV file and in the order of the page."""
        return {name: getattr(self, name) for name in COLUMNS}

    def means(self) -> list[MeanRow]:
        """The `(mean)` row of every surrogate and attack, with the surrogate's clean accuracy."""
        accuracy = {row["surrogate"]: row["clean_accuracy"] for row in self.surrogates}
        means: list[MeanRow] = []
        for row in self.transfer:
            if row["target"] == "(mean)":
                means.append({**row, "clean_accuracy": accuracy.get(row["surrogate"])})
        return means

    def is_made_elsewhere(self, surrogate: str) -> bool:
        """Whether images that were made elsewhere belong to the surrogate of this name.

        It is no network, so that it has no row in surrogates.csv. A variant has one, which may bear the same name where
        the experiment has no such images.
        """
        is_named_so = surrogate == EXTERNAL or surrogate.startswith(f"{EXTERNAL}-")
        return is_named_so and all(row["surrogate"] != surrogate for row in self.surrogates)
