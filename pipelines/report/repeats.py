"""Surrogates that are one and the same under several names, as where two variants end with the same weights."""

from pipelines.experiment.surrogates import Surrogate, series_of
from pipelines.stages.blueprint import Blueprint


def repeats_of(blueprint: Blueprint) -> dict[str, str]:
    """Each surrogate of the tables that repeats an earlier one, with the name of that one.

    Their weights are the same, and what attacks go by, with each seed; so are their adversarial images, by the
    fingerprints of these, and their gains refer to one source.
    """
    series: dict[str, list[Surrogate]] = {}
    for surrogate in blueprint.surrogates:
        series.setdefault(surrogate.series, []).append(surrogate)
    first: dict[tuple[str, ...], str] = {}
    found = {}
    for name, own in series.items():
        attacks = [(one, attack) for one in own for attack in blueprint.experiment.attacks]
        images = [blueprint.adversarial(one, attack).fingerprint for one, attack in attacks]
        same = first.setdefault((series_of(own[0].baseline), *images), name)
        if same != name:
            found[name] = same
    return found
