"""What an early stop depends on beside its settings, and what a worker needs to check a network along the way."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align_core.align_config import AlignConfig
from align_core.images.selection import stratified
from pipelines.experiment.config import Experiment
from pipelines.experiment.wraps import unwrapped
from pipelines.stages.makings import Making

if TYPE_CHECKING:
    from pipelines.compute.early_stop import Checked
    from pipelines.stages.blueprint import Blueprint

MOST_ATTACKED = 200
"""Images on which an attack is crafted at a check, at most: it is made over and over again."""


def stopping_inputs(blueprint: "Blueprint", align: AlignConfig) -> dict[str, Any]:
    """What of the experiment decides when it stops; nothing where it does not stop early."""
    stop, experiment = align.early_stop, blueprint.experiment
    if stop is None:
        return {}
    inputs: dict[str, Any] = {"images": blueprint.inspected.manifests["validation"].digest}
    if stop.attack is not None:
        inputs |= {
            "attack": blueprint.attack_inputs(stop.attack),
            "targets": [_identity(blueprint, name) for name in experiment.validation_targets],
            "chunk": experiment.compute.chunk,
            "pass": experiment.compute.pass_rows,
        }
    return {"early_stop": inputs}


def _identity(blueprint: "Blueprint", name: str) -> dict[str, Any]:
    """That of a model, or of one with a defence, whose weights are those of the model within."""
    within = blueprint.networks[unwrapped(blueprint.experiment.models, name).name]
    return replace(blueprint.networks[name], digest=within.digest).identity


def checked_of(blueprint: "Blueprint", making: Making) -> "Checked | None":
    """On what a network is checked while it is made; None where it does not stop early.

    Agreement is measured on all validation images. An attack is crafted on a stratified sample of them.
    """
    from pipelines.compute.early_stop import Checked  # which imports torch, and `witness status` has no time for it
    from pipelines.compute.others import pool_of

    stop, experiment = making.align.early_stop, blueprint.experiment
    if stop is None:
        return None
    manifest, data = blueprint.inspected.manifests["validation"], experiment.data
    assert data.validation is not None
    labels, attack, rows = manifest.labels.tolist(), None, list(range(len(manifest)))
    if stop.attack is not None:
        attack = experiment.attacks[stop.attack]
        rows = stratified(rows, manifest.ids, labels, MOST_ATTACKED, seed=0)
    return Checked(
        images=data.validation,
        fit=data.fit,
        channels=blueprint.inspected.shape[0],
        image_ids=[manifest.ids[row] for row in rows],
        labels=[labels[row] for row in rows],
        contents=[manifest.contents[row] for row in rows],
        rows=experiment.compute.chunk,
        attack=attack,
        source=making.start or making.name,
        targets=tuple(experiment.validation_targets) if attack is not None else (),
        seed=making.seed,
        pass_rows=experiment.compute.pass_rows,
        pool=pool_of("data.validation", manifest, data.validation, data.fit, making.seed),
    )


def needed_for_checks(experiment: Experiment, align: AlignConfig | None) -> tuple[str, ...]:
    """The models that are predicted with at every check, beside source and witnesses."""
    on_gain = align is not None and align.early_stop is not None and align.early_stop.by == "gain"
    return tuple(experiment.validation_targets) if on_gain else ()
