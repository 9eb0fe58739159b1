"""What an experiment does with each of its models: the trial at inspection does the same, on two images."""

from dataclasses import dataclass, field, replace

from align_core.align_config import Training, training_of, training_on_labels
from align_core.losses import LOSSES
from pipelines.experiment.config import Experiment
from pipelines.experiment.surrogates import surrogates_of


@dataclass
class ModelUse:
    """What is done with one model, beyond predictions.

    Attributes:
        has_role: whether the experiment uses it at all.
        crafted_on: whether adversarial images are crafted on it, by itself, in an ensemble, or after its alignment.
        trainings: the ways in which it is trained or aligned.
        sees: what losses compare of it beside its logits, `features` or `places`, in order.
        derivatives: how many times reasons differentiate it in its pixels: 2 what surrogates consist of, 1 what they
            are compared with.
    """

    has_role: bool = False
    crafted_on: bool = False
    trainings: list[Training] = field(default_factory=list)
    sees: list[str] = field(default_factory=list)
    derivatives: int = 0


def uses_of(experiment: Experiment, train_images: int) -> dict[str, ModelUse]:
    """What is done with each model, by its name; `train_images` is the number of training images."""
    uses = {name: ModelUse() for name in experiment.models}
    surrogates = surrogates_of(experiment)
    for surrogate in surrogates:
        for name in {surrogate.source, *surrogate.members} & uses.keys():
            uses[name].crafted_on = True
        if surrogate.align is not None:
            uses[surrogate.source].trainings.append(training_of(surrogate.align, train_images))
            seen = {LOSSES[own["name"]].sees for own in surrogate.align.losses} - {"logits"}
            for name in {surrogate.source, *surrogate.witnesses} & uses.keys() if surrogate.align.weight else ():
                uses[name].sees = sorted({*uses[name].sees, *seen})
    for name, config in experiment.models.items():
        if config.train is not None:
            training = training_of(training_on_labels(config.train), train_images)
            uses[name].trainings.append(replace(training, key="train"))
    witnesses = {name for surrogate in surrogates for name in surrogate.witnesses}
    others = {*witnesses, *experiment.witnesses, *experiment.targets, *experiment.validation_targets}
    compared = {*witnesses, *experiment.witnesses, *experiment.targets}
    for name, use in uses.items():
        if experiment.reasons is not None:
            use.derivatives = 2 if use.crafted_on else int(name in compared)
        use.has_role = use.crafted_on or name in others
        use.trainings = list(dict.fromkeys(use.trainings))
    return uses
