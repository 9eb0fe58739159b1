"""The three tables about reasons, of an experiment that asks for them."""

from collections.abc import Sequence

from pipelines.report.reason_rows import CorrelationRow, ReasonRow, SoftLabelRow
from pipelines.report.repeats import repeats_of
from pipelines.report.rows import TransferRow
from pipelines.stages.blueprint import Blueprint


def tables_of_reasons(
    blueprint: Blueprint, transfer: Sequence[TransferRow]
) -> tuple[list[ReasonRow], list[CorrelationRow], list[SoftLabelRow]]:
    """The rows of reasons.csv, correlations.csv and soft_labels.csv; none where the experiment has no reasons.

    Args:
        transfer: the rows of transfer.csv, for their gains.

    Raises RunFailed where a table of reasons is damaged.
    """
    if blueprint.experiment.reasons is None:
        return [], [], []
    # These need what is in align_core.reasons, which imports torch.
    from pipelines.report.correlation_table import correlation_rows
    from pipelines.report.reason_tables import ReasonTables
    from pipelines.report.soft_label_table import soft_label_rows

    tables = ReasonTables(blueprint)
    reasons, repeats = tables.rows(), repeats_of(blueprint)
    once = [row for row in reasons if row["surrogate"] not in repeats]
    sources = list(dict.fromkeys(own.series for own in blueprint.planned if own.name == own.baseline))
    correlations = correlation_rows(once, transfer, sources, list(blueprint.experiment.attacks))
    return reasons, correlations, soft_label_rows(tables, reasons, transfer)
