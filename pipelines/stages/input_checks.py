"""Checks that need the content of image sets and weights: readable images, distinct networks.

Each raises InputError with a message that names the setting and says what to change.
"""

from collections.abc import Mapping

from align_core.errors import InputError
from align_core.images.inspection import Inspection
from align_core.images.notes import are, listed
from pipelines.compute.networks import Network, same_tensors
from pipelines.experiment.config import DataConfig, Experiment
from pipelines.experiment.surrogates import surrogates_of
from pipelines.stages.ancestors import Ancestors


def check_readable(data: DataConfig, role: str, found: Inspection) -> None:
    """Checks that the images of a set can be read; unreadable ones are allowed only where the experiment skips them.

    `role` is its key below `data`: train, validation or test.
    """
    if found.unreadable and data.on_bad_image == "stop":
        named = listed([f"{image_id}: {reason}" for image_id, reason in found.unreadable])
        raise InputError(
            f"data.{role}: {are(len(found.unreadable))} unreadable ({named}). "
            "Repair them, or leave them out with data.on_bad_image: skip"
        )
    if not len(found):
        raise InputError(f"data.{role}: no image of this set can be read")


def check_weights_differ(experiment: Experiment, networks: Mapping[str, Network]) -> None:
    """Checks that networks which must be different have different weights, whatever they are called.

    No target may be a model that the attacker has, no validation target may be a test target, and no witness may be the
    source that is aligned to it.
    """
    pairs = _targets_and_attackers(experiment)
    pairs += [("validation_targets", v, t) for v in experiment.validation_targets for t in experiment.targets]
    for role, name, other in pairs:
        if _are_the_same(networks[name], networks[other]):
            raise InputError(f"{role}: {name} has the same weights as {other}; a target must be a model of its own")
    for role, source, witnesses in experiment.alignments():
        for witness in [own for own in witnesses if own in experiment.models]:
            if _are_the_same(networks[witness], networks[source]):
                raise InputError(f"{role}: {witness} has the same weights as the source, {source}")


def check_ancestors(
    experiment: Experiment, networks: Mapping[str, Network], ancestors: Mapping[str, Ancestors]
) -> None:
    """Checks that no target is a network that a model of the attacker was made from, in any generation."""
    for role, name, other in _targets_and_attackers(experiment):
        own, digest = ancestors[other], networks[name].digest
        if same_tensors(digest, networks[other].begins):
            raise InputError(
                f"{role}: the training of {other} starts from the weights of {name}; a target is a model that the "
                "attacker cannot see"
            )
        if how := _how_it_was_made_from(digest, own):
            raise InputError(
                f"{role}: {other} was {how} {name}, as its card says; a target is a model that the attacker cannot see"
            )


def _how_it_was_made_from(digest: str | None, own: Ancestors) -> str | None:
    """In words, how a model was made from the weights of this hash; None where it was not."""
    if any(same_tensors(digest, witness) for witness in own.witnesses):
        return "aligned to"
    if same_tensors(digest, own.source):
        return "aligned from"
    if any(same_tensors(digest, earlier) for earlier in own.earlier):
        return "aligned from or to a model that was itself made from"
    return None


def notes_on_sources(
    experiment: Experiment, networks: Mapping[str, Network], ancestors: Mapping[str, Ancestors]
) -> list[str]:
    """A note for each variant that was aligned from another source than that to which its gains refer."""
    notes = []
    for name, variant in experiment.variants.items():
        source = variant.source or experiment.source
        own = ancestors[variant.model].source if variant.model else None
        digest = networks[source].digest
        if own is not None and digest is not None and not same_tensors(digest, own):
            notes.append(
                f"variants.{name}: {variant.model} was not aligned from {source}, to which its gains refer, but from "
                "other weights, as its card says; name its own source as `source`"
            )
    return notes


def notes_on_beginnings(experiment: Experiment, networks: Mapping[str, Network]) -> list[str]:
    """A note for each set of weights from which models come that are to be independent of each other.

    These are a target and a model of the attacker, a witness and its source, a validation target and a target. One of
    them, or both, were trained here from the weights.
    """
    pairs = [(target, attacker) for _, target, attacker in _targets_and_attackers(experiment)]
    pairs += [(w, s) for _, s, witnesses in experiment.alignments() for w in witnesses if w in networks]
    pairs += [(v, t) for v in experiment.validation_targets for t in experiment.targets]
    related: dict[str, set[str]] = {}
    for pair in pairs:
        first, second = (networks[name].begins or networks[name].digest for name in pair)
        if first is not None and same_tensors(first, second):
            related.setdefault(first.partition("-")[0], set()).update(pair)
    return [
        f"{', '.join(name for name in networks if name in names)}: these models come from the same weights, by `train` "
        "with `weights`; transfer between them, or alignment of one to another, says little of models that were "
        "trained independently"
        for names in related.values()
    ]


def notes_on_seeds(experiment: Experiment) -> list[str]:
    """A note where the seeds are too few for an interval over seeds that says much."""
    if len(experiment.seeds) != 2:
        return []
    return [
        "seeds: with two of them, an interval over images and seeds has one degree of freedom, and is more than three "
        "times as wide as with three: it rarely excludes 0. Three or more say more"
    ]


def notes_on_families(experiment: Experiment) -> list[str]:
    """A note for each factory whose networks count as unrelated because the file does not say what family they are."""
    by_factory: dict[str, list[str]] = {}
    for name in dict.fromkeys([*experiment.sources, *experiment.targets]):
        model = experiment.models[name]
        if model.factory is not None and model.family is None:
            by_factory.setdefault(model.factory, []).append(name)
    return [
        f"models.{', '.join(names)}: {factory} makes them all, and they count as cross-family; give them one `family` "
        "if they are related"
        for factory, names in by_factory.items()
        if len({experiment.models[name].structure for name in names}) > 1
        and any(name in experiment.sources for name in names)
    ]


def _targets_and_attackers(experiment: Experiment) -> list[tuple[str, str, str]]:
    """(role, target, model of the attacker) of every pair of the two, of which no surrogate knows both."""
    attacker = [experiment.source, *experiment.witnesses]
    for variant in experiment.variants.values():
        attacker += experiment.models_of(variant)
    roles = ("targets", "validation_targets")
    if not experiment.matrix:
        return [(role, target, own) for role in roles for target in getattr(experiment, role) for own in attacker]
    pairs = [("matrix", target, own) for own in experiment.witnesses for target in experiment.targets]
    for surrogate in surrogates_of(experiment):
        pairs += [
            (role, target, own)
            for own in sorted(surrogate.known)
            for role, targets in (("matrix", experiment.targets), ("validation_targets", experiment.validation_targets))
            for target in surrogate.unseen(targets)
        ]
    return list(dict.fromkeys(pairs))


def _are_the_same(one: Network, other: Network) -> bool:
    return one.digest is not None and same_tensors(one.digest, other.digest)
