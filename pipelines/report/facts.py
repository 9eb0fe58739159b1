"""What was asked, and how it was run: the parts of a report that are neither outcomes nor tables, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from align_core.align_config import AlignConfig
from align_core.attacks import PRESETS, AttackConfig, ForeignConfig, MadeElsewhere
from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.losses.known import LOSSES, read_losses
from align_core.model_config import ModelConfig
from align_core.refinements import REFINEMENTS
from pipelines.experiment.surrogates import Surrogate
from pipelines.experiment.written import as_yaml
from pipelines.report.examples import Examples, examples_of
from pipelines.report.outcomes import Outcomes
from pipelines.report.tables import target_relation
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.credentials import without_credentials
from pipelines.storage.far import is_far
from pipelines.storage.versions import versions

_PLACES = ("output", "tracking", "factories")
"""Keys that say where something lies on one machine. Whoever runs the experiment elsewhere has others."""

_AUTOATTACK = "Croce and Hein, 2003.01690, 2020"

Line = tuple[str, str]
"""A heading, and what stands beside it."""


@dataclass(frozen=True)
class Facts:
    """What a page says besides its tables and figures. Whatever is empty is left out.

    Attributes:
        warning: what the experiment file warns its readers of.
        asked: what was asked, line by line.
        models: every model that has a role: name, roles, architecture, family, clean accuracy in percent, hash.
        attacks: every attack: name, method, paper, ball, steps, gradients per image.
        refinements: the published ways in which surrogates were made: name, surrogates, paper.
        examples: images, perturbations and adversarial images.
        no_examples: why there are none, where the test images cannot be read as they were.
        versions, hashes: of the software, and of image sets and weights.
        settings: the experiment file, with every setting that took effect.
    """

    warning: str | None = None
    asked: Sequence[Line] = ()
    models: Sequence[Mapping[str, str]] = ()
    attacks: Sequence[Mapping[str, str]] = ()
    refinements: Sequence[Mapping[str, str]] = ()
    examples: Examples | None = None
    no_examples: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Sequence[Line] = ()
    settings: str = ""


def facts_of(blueprint: Blueprint, outcomes: Outcomes) -> Facts:
    """The facts of a finished experiment."""
    digests = {name: network.digest for name, network in blueprint.networks.items() if network.digest}
    examples, no_examples = _examples(blueprint, outcomes)
    images = {f"images: {role}": manifest.digest for role, manifest in blueprint.inspected.manifests.items()}
    return Facts(
        warning=blueprint.experiment.warning,
        asked=_asked(blueprint),
        models=_models(blueprint, outcomes),
        attacks=_attacks(blueprint),
        refinements=_refinements(blueprint),
        examples=examples,
        no_examples=no_examples,
        versions=versions(),
        hashes=[*images.items(), *((f"weights: {name}", digest) for name, digest in digests.items())],
        settings=settings_text(blueprint),
    )


def _examples(blueprint: Blueprint, outcomes: Outcomes) -> tuple[Examples | None, str]:
    """The example images, or why there are none: tables need no test image, and are reported without them."""
    try:
        return examples_of(blueprint, outcomes), ""
    except InputError as problem:
        return None, str(problem)


def settings_text(blueprint: Blueprint) -> str:
    """The settings as an experiment file, without output folder, tracking store and folder of factories."""
    content = yaml.safe_load(as_yaml(blueprint.experiment))
    kept = {key: value for key, value in content.items() if key not in _PLACES}
    return yaml.safe_dump(kept, sort_keys=False, width=110, allow_unicode=True)


def about(blueprint: Blueprint) -> dict[str, Any]:
    """What results.json says of the experiment before its tables."""
    experiment, manifests = blueprint.experiment, blueprint.inspected.manifests
    return {
        "experiment": experiment.name,
        "warning": experiment.warning,
        "seeds": list(experiment.seeds or [experiment.seed]),
        "roles": {
            "sources": list(experiment.sources),
            "witnesses": list(experiment.witnesses),
            "targets": list(experiment.targets),
        },
        "images": {
            role: {"hash": own.digest, "count": len(own), "shape": list(own.shape)} for role, own in manifests.items()
        },
        "weights": {name: network.digest for name, network in blueprint.networks.items()},
        "versions": versions(),
        "settings": yaml.safe_load(settings_text(blueprint)),
        "missing": blueprint.holes(),
    }


def _asked(blueprint: Blueprint) -> list[Line]:
    experiment, manifests = blueprint.experiment, blueprint.inspected.manifests
    channels, height, width = blueprint.inspected.shape
    data, align = experiment.data, experiment.align
    sets = [f"{role}: {len(manifests[role]):,} of {_place(config)}" for role, config in experiment.image_sets().items()]
    wanted = [
        ("sources" if experiment.matrix else "source", ", ".join(experiment.sources)),
        ("witnesses" if len(experiment.witnesses) > 1 else "witness", ", ".join(experiment.witnesses) or "none"),
        ("targets", ", ".join(experiment.targets)),
        ("images", f"{data.classes_count:,} classes, {height} × {width} pixels, {'RGB' if channels == 3 else 'grey'}"),
        ("image sets", "; ".join(sets)),
        ("eps", "; ".join(dict.fromkeys(_ball(attack) for attack in experiment.all_attacks.values()))),
    ]
    if experiment.witnesses:
        terms = f"loss {align.loss}, temperature {align.temperature:g}, weight {align.weight:g}"
        labels = f", label_weight {align.label_weight:g}" if align.label_weight else ""
        optimizer = f"{align.optimizer.name}, lr {align.optimizer.lr:g}"
        wanted.append(("alignment", f"{terms}{labels}; {_duration(align)}; {optimizer}"))
    wanted.append(("controls", ", ".join(experiment.controls) or "none"))
    seeds = ", ".join(map(str, experiment.seeds or [experiment.seed]))
    wanted.append(("seeds" if experiment.seeds else "seed", seeds))
    return [*wanted, ("protocol", _protocol(blueprint))]


def _duration(align: AlignConfig) -> str:
    """How long is aligned, such as `2 steps at most, with an early stop by agreement, batches of 128`."""
    count, unit = (align.limit_steps, "step") if align.limit_steps is not None else (align.epochs, "epoch")
    length = f"{count:,} {unit}{'s' if count != 1 else ''}"
    if (stop := align.early_stop) is not None:
        length += f" at most, with an early stop by {stop.by}{f' under {stop.attack}' if stop.attack else ''}"
    return f"{length}, batches of {align.batch_size}"


def _protocol(blueprint: Blueprint) -> str:
    test = len(blueprint.inspected.manifests["test"])
    return (
        f"Every surrogate is attacked on all {test:,} test images. Adversarial images are rounded to 8 bits inside the "
        "ball, and the stored image is the one that is evaluated. A transfer rate is the share of those test images "
        "that a target gets wrong when attacked, of the ones that the original source and this target both classify "
        "correctly when clean: the same images for every surrogate of that source and every attack."
    )


def _place(config: ImageSetConfig) -> str:
    """Where an image set comes from, without the folder in which it lies on this machine."""
    path = config.path or config.kind
    if is_far(path):
        path = without_credentials(path).partition("?")[0]
    name = path.rstrip("/").rpartition("/")[2]
    drawn = [f"from {config.take[0]:,} to {config.take[1]:,}"] if config.take else []
    drawn += [f"the first {config.limit:,}"] if config.limit is not None else []
    drawn += [f"a sample of {config.sample:,}"] if config.sample is not None else []
    return f"{name} ({', '.join(drawn)})" if drawn else name


def _ball(attack: AttackConfig | ForeignConfig | MadeElsewhere) -> str:
    return f"l2, {attack.eps:.4g}" if attack.norm == "l2" else f"l-infinity, {255 * attack.eps:.4g}/255"


def _models(blueprint: Blueprint, outcomes: Outcomes) -> list[dict[str, str]]:
    experiment = blueprint.experiment
    roles: dict[str, list[str]] = {}
    for role, names in (
        ("source", experiment.sources),
        ("witness", experiment.witnesses),
        ("target", experiment.targets),
    ):
        for name in names:
            roles.setdefault(name, []).append(role)
    found = []
    for name, own in roles.items():
        network = blueprint.networks.get(name)
        config = experiment.models.get(name)
        if network is None or config is None:  # a witness may be a surrogate that is made here
            continue
        is_target = own == ["target"] and not experiment.matrix
        right = outcomes.right(name).mean() if name in outcomes.prediction else None
        found.append(
            {
                "model": name,
                "role": ", ".join(own),
                "architecture": _architecture(config),
                "family": config.family or name,
                "relation to the source": target_relation(blueprint, experiment.source, name).replace("_", " ")
                if is_target
                else "",
                "clean accuracy, %": "" if right is None else f"{100 * right:.1f}",
                "weights": (network.digest or "not there")[:12],
            }
        )
    return found


def _architecture(config: ModelConfig) -> str:
    """What a model is, in words: the library and its name there, and its arguments."""
    kinds = ("timm", "torchvision", "factory", "aligned", "mlflow", "wrap")
    kind = next(own for own in kinds if getattr(config, own) is not None)
    name = str(getattr(config, kind))
    name = name.rstrip("/").rpartition("/")[2] if kind == "aligned" else name
    within = f" around {config.model}" if config.wrap is not None else ""
    arguments = ", ".join(f"{key}={value!r}" for key, value in config.args.items())
    trained = "; trained here" if config.train is not None else ""
    return f"{kind} {name}{within}{f' ({arguments})' if arguments else ''}{trained}"


def _attacks(blueprint: Blueprint) -> list[dict[str, str]]:
    found = []
    for name, attack in blueprint.experiment.attacks.items():
        preset = PRESETS.get(attack.method)
        has_own_steps = isinstance(attack, ForeignConfig) and attack.has_own_steps
        found.append(
            {
                "attack": name,
                "method": attack.method,
                "ball": _ball(attack),
                "steps": "its own" if has_own_steps else f"{attack.steps} of {_length(attack)}",
                "towards": "away from the label" if not attack.is_targeted else str(attack.towards).replace("_", " "),
                "gradients per image": "counted" if attack.gradients is None else f"{attack.gradients:,}",
                "paper": f"{preset.paper}, {preset.year}" if preset else _AUTOATTACK if has_own_steps else "",
            }
        )
    found += [
        {
            "attack": name,
            "method": "made elsewhere",
            "ball": _ball(made),
            "steps": "not known",
            "towards": "the classes that the image set lists" if made.is_targeted else "away from the label",
            "gradients per image": "not known",
            "paper": "",
        }
        for name, made in blueprint.experiment.made_elsewhere.items()
    ]
    return found


def _length(attack: AttackConfig | ForeignConfig) -> str:
    return f"{attack.step:.4g}" if attack.norm == "l2" else f"{255 * attack.step:.4g}/255"


def _refinements(blueprint: Blueprint) -> list[dict[str, str]]:
    made: dict[tuple[str, str], dict[str, None]] = {}
    for own in blueprint.planned:
        if own.refine in REFINEMENTS:
            made.setdefault((str(own.refine), _losses(own)), {})[own.series] = None
    return [
        {
            "refinement": name,
            "surrogates": ", ".join(series),
            "loss": losses,
            "what": REFINEMENTS[name].what,
            "paper": f"{REFINEMENTS[name].paper}, {REFINEMENTS[name].year}",
        }
        for (name, losses), series in made.items()
    ]


def _losses(surrogate: Surrogate) -> str:
    """What a surrogate's alignment compares, such as `pkt × 30,000`; empty where it has no witness."""
    if surrogate.align is None or not surrogate.witnesses:
        return ""
    own = [(loss["name"], loss["weight"]) for loss in read_losses(surrogate.align.loss)]
    return " + ".join(
        f"{name}{f' × {weight:,g}' if weight != 1 else ''}"
        f"{f' (temperature {surrogate.align.temperature:g})' if LOSSES[name].tempered else ''}"
        for name, weight in own
    )
