"""The few figures by which MLflow compares runs: the same names for every surrogate. The rest is in tables."""

from collections.abc import Mapping, Sequence

from pipelines.experiment.config import Experiment
from pipelines.experiment.surrogates import Surrogate
from pipelines.report.fine_tune_times import FINE_TUNE
from pipelines.report.rows import COLUMNS
from pipelines.report.tabled import Report
from pipelines.storage.csv_table import to_csv

_OF_MEAN = ("gain", "gain_low", "gain_high", "gain_spread", "rate", "targeted_rate")
_OF_SURROGATE = ("clean_accuracy", "clean_change", "robust_accuracy", "witness_agreement")
_UNDER_EACH_ATTACK = ("gain", "rate")


def headline_attack(experiment: Experiment) -> str:
    """The attack that `gain` and `rate` of a run are of: the experiment's first, by which a sweep goes too."""
    return next(iter(experiment.attacks))


def headline(report: Report, surrogate: str, attack: str) -> dict[str, float]:
    """The figures of a surrogate, in the mean over its targets. Blank ones are left out.

    They are those under `attack`; where there are several attacks, those under each are `gain/<attack>` and
    `rate/<attack>` besides, which MLflow shows in one section for each figure.
    """
    means = [row for row in report.transfer if (row["surrogate"], row["target"]) == (surrogate, "(mean)")]
    rows = [row for row in report.surrogates if row["surrogate"] == surrogate]
    metrics: dict[str, float] = {}
    for mean in means:
        if mean["attack"] == attack:
            metrics |= _numbers("", mean, _OF_MEAN)
    for row in rows:
        metrics |= _numbers("", row, _OF_SURROGATE)
    return metrics | _under_each(means) | _seconds(report, surrogate)


def headline_of_seed(report: Report, surrogate: Surrogate, attack: str) -> dict[str, float]:
    """The figures of one of several seeds, under the same names."""
    own = (surrogate.series, surrogate.seed, "(mean)")
    means = [row for row in report.seeds if (row["surrogate"], row["seed"], row["target"]) == own]
    metrics: dict[str, float] = {}
    for mean in means:
        if mean["attack"] == attack:
            metrics |= _numbers("", mean, ("gain", "rate", "targeted_rate", "clean_accuracy"))
    return metrics | _under_each(means)


def tables_of(report: Report, surrogate: str) -> dict[str, bytes]:
    """The rows of a surrogate in each table that has any, as CSV files by their names."""
    found = {}
    for table, rows in report.tables().items():
        own = [row for row in rows if row.get("surrogate") == surrogate]
        if own:
            found[f"{table}.csv"] = to_csv(own, COLUMNS[table])
    return found


def _under_each(means: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """The figures under each attack, where there are several."""
    found: dict[str, float] = {}
    for figure in _UNDER_EACH_ATTACK if len(means) > 1 else ():
        for mean in means:
            found |= {f"{figure}/{mean['attack']}": value for value in _numbers("", mean, [figure]).values()}
    return found


def _seconds(report: Report, surrogate: str) -> dict[str, float]:
    """What the surrogate and its attacks took; nothing where that was not measured."""
    spent: dict[str, float] = {}
    for row in report.times:
        if row["surrogate"] == surrogate:
            name = "fine_tune_seconds" if row["attack"] == FINE_TUNE else "craft_seconds"
            spent[name] = spent.get(name, 0.0) + row["seconds"]
    return spent


def _numbers(prefix: str, row: Mapping[str, object], names: Sequence[str]) -> dict[str, float]:
    """These columns of a row, but for those that are blank, as metrics."""
    return {f"{prefix}{name}": float(value) for name in names if isinstance(value := row[name], int | float)}
