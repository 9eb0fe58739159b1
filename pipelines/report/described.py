"""What MLflow says of a run in words, as Markdown: what was asked, and what came of it."""

from collections.abc import Sequence

from pipelines.report.ranking import ranking
from pipelines.report.sentences import verdicts
from pipelines.report.tabled import Report
from pipelines.stages.blueprint import Blueprint

_SHOWN = 12  # sentences; the report has all of them


def description(blueprint: Blueprint, report: Report | None) -> str:
    """What the whole experiment asks, and its verdicts; without a report, that there is none yet."""
    experiment = blueprint.experiment
    sources, witnesses = _listed(experiment.sources), _listed(experiment.witnesses)
    made = f"{sources} aligned to {witnesses}" if witnesses else sources
    further = [f"{len(experiment.variants)} variants"] if experiment.variants else []
    further += [f"the controls {_listed(experiment.controls)}"] if experiment.controls else []
    beside = f" (beside {' and '.join(further)})" if further else ""
    seeds = f"seeds {', '.join(map(str, experiment.seeds))}" if experiment.seeds else f"seed {experiment.seed}"
    lines = [
        f"**Asked.** How often do attacks that are crafted on {made}{beside} fool {_listed(blueprint.targets)}, and "
        "how much more often than those on the source as it is?",
        "",
        f"{len(blueprint.inspected.manifests['test']):,} test images, {seeds}; attacks "
        f"{_listed(list(experiment.attacks))}.",
        "",
    ]
    if report is None:
        return "\n".join([*lines, "**Verdict.** None yet: the work goes on, or was ended before its report."])
    found = [*ranking(report), *verdicts(report)]
    lines += ["**Verdict.**" if found else "**Verdict.** None: no surrogate has a gain over the source.", ""]
    lines += [f"* {line}" for line in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"* and {len(found) - _SHOWN} sentences more in the artifact report.html")
    lines += [f"* Not there: {hole}" for hole in blueprint.holes()]
    return "\n".join(lines)


def description_of(report: Report, surrogate: str) -> str:
    """The verdicts on one surrogate; empty where it has none, as the source itself."""
    return "\n".join(f"* {line}" for line in verdicts(report) if line.startswith(f"{surrogate} under "))


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
