"""Which figures a report has. A new figure is a module that draws it, and an entry here."""

from matplotlib.figure import Figure

from pipelines.report.curves import curve_figures, training_curves
from pipelines.report.figures import gain_figures, transfer_heatmaps
from pipelines.report.geometry import geometry_figures, slice_figures
from pipelines.report.pareto import pareto_figure
from pipelines.report.reason_gains import changes_and_gains, reason_gain_figures
from pipelines.report.relations import gains_by_kind, relation_figures
from pipelines.report.rows import SurrogateRow
from pipelines.report.softness import softness_figures, softness_of
from pipelines.report.tabled import Report
from pipelines.report.temperatures import gains_by_temperature, lines_of, temperature_figures
from pipelines.stages.blueprint import Blueprint


def draw_figures(blueprint: Blueprint, report: Report) -> dict[str, Figure]:
    """The figures by name: `gain`, `transfer` and `pareto` always, others where there is something to show.

    What does not fit into one figure goes on in `NAME-2` and so on.
    """
    experiment, transfer = blueprint.experiment, report.transfer
    name = experiment.name
    several = any(row["seeds"] > 1 for row in transfer)
    seeds = "; intervals are over images and seeds" if several else ""
    over = "; means are over each surrogate's own targets" if experiment.matrix else ""
    in_brackets = "; in brackets white-box" if experiment.matrix else ""
    white_box = white_box_rates(blueprint, report.surrogates)
    sources = list(dict.fromkeys(own.series for own in blueprint.planned if own.name == own.baseline))
    figures = {
        "gain": gain_figures(transfer, f"{name}: gain in transfer{over}{seeds}"),
        "relations": relation_figures(gains_by_kind(transfer), f"{name}: gain by relation to the source{over}{seeds}"),
        "transfer": transfer_heatmaps(transfer, f"{name}: transfer rate, %{over}{in_brackets}", white_box),
        "pareto": [
            pareto_figure(
                transfer,
                experiment.attacks,
                list(experiment.groups),
                f"{name}: transfer rate against cost{over}",
            )
        ],
        "temperature": temperature_figures(
            gains_by_temperature(blueprint.surrogates, transfer), f"{name}: gain against temperature{over}{seeds}"
        ),
        "softness": softness_figures(
            softness_of(report.soft_labels, lines_of(blueprint.surrogates)), f"{name}: soft labels against temperature"
        ),
        "geometry": geometry_figures(report.reasons, f"{name}: the loss of each surrogate"),
        "slices": slice_figures(report.reasons, f"{name}: the loss along the attack"),
        "changes": reason_gain_figures(
            changes_and_gains(report.reasons, transfer, sources, list(experiment.attacks)),
            report.correlations,
            f"{name}: gain against what changed",
        ),
        "curves": curve_figures(training_curves(blueprint), f"{name}: training curves"),
    }
    return {
        kind if number == 1 else f"{kind}-{number}": figure
        for kind, parts in figures.items()
        for number, figure in enumerate(parts, start=1)
    }


def white_box_rates(blueprint: Blueprint, surrogates: list[SurrogateRow]) -> dict[tuple[str, str, str], float | None]:
    """(attack, surrogate, target) -> the white-box rate of every surrogate that is a target by itself, as in a matrix.

    Of targeted attacks it is the targeted one.

    The images that count are those that it classifies correctly, as both source and target.
    """
    alone = {own.series: own.members[0] for own in blueprint.surrogates if len(own.members) == 1}
    return {
        (row["attack"], row["surrogate"], target): (
            row["whitebox_rate"] if row["whitebox_targeted_rate"] is None else row["whitebox_targeted_rate"]
        )
        for row in surrogates
        if (target := alone.get(row["surrogate"])) in blueprint.targets and row["attack"] != "(all)"
    }
