"""Checks of an experiment as a whole: names, roles and variants. Each key by itself is checked by its type."""

from typing import TYPE_CHECKING

from pydantic import ValidationError

from align_core.align_config import AlignConfig
from align_core.attacks import AttackConfig, ForeignConfig, MadeElsewhere
from align_core.errors import InputError
from pipelines.experiment.explain import explained, nearest
from pipelines.experiment.matrix import check_matrix
from pipelines.experiment.names import (
    EXTERNAL,
    MLFLOW_NAMES,
    RESERVED_ATTACKS,
    RESERVED_GROUPS,
    RESERVED_NAMES,
    RESERVED_STARTS,
    check_name,
)
from pipelines.experiment.variants import check_variant, check_variants
from pipelines.experiment.wraps import check_wraps, unwrapped

if TYPE_CHECKING:
    from pipelines.experiment.config import DataConfig, Experiment

_MOST_CHANNELS = 3


def checked(experiment: "Experiment") -> "Experiment":
    """Returns the experiment if its parts fit each other. Raises InputError, which names the key, if they do not.

    Sweeps call it for the experiments that they derive from another one, which pydantic does not validate again.
    """
    try:
        check_name(experiment.name)
    except ValueError as problem:
        raise InputError(f"name: {problem}") from problem
    _check_seeds(experiment.seeds)
    for name, variant in experiment.variants.items():
        check_variant(name, variant)
        _check_alignment(experiment, name)
    attacks = {name: _checked_attack(name, attack, experiment.data) for name, attack in experiment.all_attacks.items()}
    _check_made_elsewhere(experiment)
    check_matrix(experiment)
    roles = _roles(experiment)
    check_variants(experiment)
    _check_models(experiment, roles)
    check_wraps(experiment, roles)
    _check_disjoint(experiment, roles)
    _check_groups(experiment)
    _check_reasons(experiment)
    _check_names(experiment)
    return experiment.model_copy(update={"all_attacks": attacks})


def _check_seeds(seeds: list[int]) -> None:
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        raise InputError(f"seeds: {twice[0]} is named twice")
    if len(seeds) == 1:
        raise InputError(
            f"seeds: one seed has no spread; write seed: {seeds[0]} (and seeds: [] over a file's), or name several"
        )


def _check_alignment(experiment: "Experiment", variant: str) -> None:
    try:
        experiment.variant_align(variant)
    except ValidationError as problem:
        raise InputError(explained(problem, AlignConfig, within=f"variants.{variant}.align")) from problem


def _checked_attack(
    name: str, attack: AttackConfig | ForeignConfig | MadeElsewhere, data: "DataConfig"
) -> AttackConfig | ForeignConfig | MadeElsewhere:
    """The attack on the experiment's images: what depends on their size, such as `kernel: auto`, is a number then."""
    if name.lower() in RESERVED_ATTACKS:
        raise InputError(f"attacks.{name}: this name is reserved for rows of the tables; choose another name")
    try:
        return attack.for_images(data.channels or _MOST_CHANNELS, data.image_size)
    except InputError as problem:
        raise InputError(f"attacks.{name}: {problem}") from problem


def _check_made_elsewhere(experiment: "Experiment") -> None:
    """Images made elsewhere belong to a surrogate of their own, and are compared with attacks of ours alone."""
    if not experiment.attacks:
        raise InputError(
            "attacks: all of them are images that were made elsewhere; add an attack that is crafted here, with which "
            "they can be compared"
        )
    for name, made in experiment.made_elsewhere.items():
        _check_source_of(experiment, name, made.source)
        if made.compare_with is not None and made.compare_with not in experiment.attacks:
            near = nearest(made.compare_with, experiment.attacks)
            raise InputError(
                f"attacks.{name}.compare_with: there is no attack {made.compare_with!r} that is crafted here{near}"
            )
        external = f"{EXTERNAL}-{made.source}" if experiment.matrix else EXTERNAL
        for kind in ("models", "variants"):
            if taken := [own for own in getattr(experiment, kind) if own.lower() == external.lower()]:
                raise InputError(
                    f"{kind}.{taken[0]}: this is the name of the surrogate to which attacks.{name} belongs, whose "
                    "images were made elsewhere; choose another name"
                )


def _check_source_of(experiment: "Experiment", attack: str, source: str | None) -> None:
    """The source that images made elsewhere are measured beside is named where there are several, and only there."""
    key, matrix = f"attacks.{attack}.source", experiment.matrix
    if source is None and matrix:
        raise InputError(
            f"{key}: must be given, because a matrix has no single source: these images are evaluated on its targets, "
            "beside those that are crafted on it"
        )
    if source is not None and not matrix:
        raise InputError(f"{key}: applies to a matrix; the only source here is {experiment.source}: leave it out")
    if source is not None and source not in matrix:
        raise InputError(f"{key}: {source!r} is not in the matrix{nearest(source, matrix)}")


def _roles(experiment: "Experiment") -> dict[str, list[str]]:
    """Key of every role -> the models that it names."""
    roles = {"source": [experiment.source], "witnesses": experiment.witnesses, "targets": experiment.targets}
    if experiment.matrix:
        roles = {"matrix": experiment.matrix, "witnesses": experiment.witnesses}
    roles["validation_targets"] = experiment.validation_targets
    for name, variant in experiment.variants.items():
        roles[f"variants.{name}.source"] = [variant.source] if variant.source else []
        made = experiment.variants.keys()
        roles[f"variants.{name}.witnesses"] = [own for own in variant.witnesses or [] if own not in made]
        roles[f"variants.{name}.ensemble"] = [own for own in variant.ensemble or [] if own in experiment.models]
        roles[f"variants.{name}.model"] = [variant.model] if variant.model else []
    return roles


def _check_models(experiment: "Experiment", roles: dict[str, list[str]]) -> None:
    """Every role names models of the experiment, each once."""
    for role, names in roles.items():
        for name in names:
            if name not in experiment.models:
                raise InputError(f"{role}: there is no model {name!r}{nearest(name, experiment.models)}")
    for key, names in {**roles, "controls": list[str](experiment.controls)}.items():
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{key}: {twice[0]} is named twice")


def _check_disjoint(experiment: "Experiment", roles: dict[str, list[str]]) -> None:
    """No target is known to the attacker, no witness is its own source, and no target is used for tuning as well.

    In a matrix, where each source is a target of the others, `Surrogate.unseen` leaves out the targets that are known.
    """
    attacker = {name: role for role, names in roles.items() if not role.endswith("targets") for name in names}
    for role in ("targets", "validation_targets"):
        for name in roles.get(role, []):
            within = unwrapped(experiment.models, name).name
            if within in attacker:
                shown = name if within == name else f"{name} is {within} with a defence, and {within}"
                raise InputError(
                    f"{role}: {shown} is named in {attacker[within]} too; a target is a model that the attacker cannot "
                    "see"
                )
    for role, source, witnesses in experiment.alignments():
        if source in witnesses:
            raise InputError(f"{role}: {source} is the source too; a witness is an independently trained model")
    tested = {unwrapped(experiment.models, name).name for name in experiment.targets}
    both = {name for name in experiment.validation_targets if unwrapped(experiment.models, name).name in tested}
    if both:
        is_itself = min(both) in experiment.targets
        too = "is in targets too" if is_itself else "and a target are one model, apart from a defence"
        raise InputError(f"validation_targets: {min(both)} {too}; tuning must not see a test target")


def _check_groups(experiment: "Experiment") -> None:
    """Every group holds targets, each once, under a name that stands for nothing else in the tables."""
    for name, group in experiment.groups.items():
        if name.lower().replace("-", "_") in RESERVED_GROUPS:
            raise InputError(f"groups.{name}: the tables have this name for something else; choose another name")
        if not group:
            raise InputError(f"groups.{name}: must name at least one target")
        for target in group:
            if target not in experiment.targets:
                near = nearest(target, experiment.targets)
                raise InputError(f"groups.{name}: {target!r} is not among the targets{near}")
            if group.count(target) > 1:
                raise InputError(f"groups.{name}: {target} is named twice")


def _check_reasons(experiment: "Experiment") -> None:
    attack = experiment.reasons.attack if experiment.reasons else None
    if attack is not None and attack not in experiment.attacks:
        raise InputError(f"reasons.attack: there is no attack {attack!r}{nearest(attack, experiment.attacks)}")


def _check_names(experiment: "Experiment") -> None:
    """Some names have a meaning here. Capitals do not tell names apart: on some disks they name one folder."""
    if experiment.name.lower() in MLFLOW_NAMES:
        raise InputError(f"name: {experiment.name} is MLflow's own in the output folder; choose another name")
    for kind, taken in (("models", experiment.models), ("variants", experiment.variants)):
        for name in taken:
            if name.lower() in RESERVED_NAMES or name.lower().startswith(RESERVED_STARTS):
                raise InputError(f"{kind}.{name}: this name is reserved for surrogates; choose another name")
    for name in experiment.variants:
        if name in experiment.models:
            raise InputError(f"variants.{name}: a model has this name too; choose another name for the variant")
    for kind, names in (
        ("models", [*experiment.models, *experiment.variants]),
        ("attacks", list(experiment.all_attacks)),
    ):
        first = {name.lower(): name for name in reversed(names)}
        for name in names:
            if first[name.lower()] != name:
                own = "variants" if name in experiment.variants else kind
                raise InputError(
                    f"{own}.{name}: differs from {first[name.lower()]} in capitals alone, and some disks take both for "
                    "one name; choose another name"
                )
