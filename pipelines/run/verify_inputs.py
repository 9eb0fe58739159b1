"""The checks of what results were made from: image sets, the weights of networks, and the cards of those made here."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from safetensors.torch import load as load_safetensors

from align_core.errors import InputError, reason_of
from align_core.images import ImageSetConfig
from align_core.images.inspection import Inspection, inspect_images
from align_core.made_images import open_made_images
from align_core.model_config import ModelConfig, model_config_from
from align_core.published import as_built
from align_core.weights import hash_state, hash_weights, read_weights
from pipelines.compute.here import images_here, images_shown, made_here, weights_here
from pipelines.compute.loading import LoadedNetworks
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.run.verification import Verification
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.inspect_images import look_at_all
from pipelines.stages.inspect_made import digest_of
from pipelines.stages.makings import Making
from pipelines.storage.differences import differences
from pipelines.storage.store import Store, fingerprint_of


def has_results(experiment: Experiment) -> bool:
    """Whether anything was made of this experiment's inputs."""
    try:
        folders = Store(experiment.output, experiment.name).listing()
    except OSError:
        return False
    return any(folder and folder[0] != "." for folder in folders)


def unusable_inputs(experiment: Experiment, problem: str) -> list[str]:
    """A finding for each file of weights that cannot be read, or else for the problem that ended the inspection."""
    findings = []
    for name, config in experiment.models.items():
        try:
            if (file := weights_here(config).weights_file) is not None:
                read_weights(file)
        except InputError as damage:
            findings.append(f"models.{name}: {damage}")
    end = "what was made of it, and everything else, cannot be checked"
    return [f"{finding}; {end}" for finding in findings or [problem]]


def other_networks(blueprint: Blueprint) -> list[str]:
    """A finding for each network that is there, but is not that of the present settings, files and code."""
    store, listing, findings = blueprint.store, blueprint.store.listing(), []
    for making in (*blueprint.trainings(), *blueprint.alignments()):
        is_wanted = not blueprint.is_made(making.name) and making.name not in blueprint.lost
        if is_wanted and listing.get(making.folder):
            card = store.read_json(f"{making.folder}/card.json")
            if card is None:
                findings.append(f"{making.folder}/card.json: missing or damaged")
            else:
                differ = differences(card.get("inputs"), making.inputs, making.names) or "its card was edited"
                findings.append(f"{making.folder}: not what the settings, files and code here would make ({differ})")
    return findings


def other_tables(blueprint: Blueprint) -> list[str]:
    """A finding for each reason for which tables are there, but are not those of the present networks and settings."""
    store, listing, folders = blueprint.store, blueprint.store.listing(), dict[str, list[str]]()
    clean = [own.table for own in (*blueprint.clean().values(), *blueprint.corrupted().values())]
    images, cells = blueprint.all_adversarial().values(), [cell.table for cell in blueprint.cells()]
    for table in (*clean, *images, *cells, *blueprint.reasons().values()):
        others = [name for name in listing.get(table.folder, ()) if not name.startswith(table.fingerprint)]
        if others and not table.is_finished(listing):
            folders.setdefault(table.why_others(store, others), []).append(table.folder)
    return [
        f"{found[0]}{f' and {len(found) - 1} more tables' if found[1:] else ''}: {why}"
        for why, found in folders.items()
    ]


def check_image_sets(blueprint: Blueprint, found: Verification, progress: Progress) -> None:
    """Decodes every image set anew and compares its hash with that of the manifest in the store."""
    experiment, known = blueprint.experiment, blueprint.inspected.manifests
    data = experiment.data

    def look(role: str, config: ImageSetConfig) -> Inspection:
        with progress.stage(f"check data.{role}", len(known[role]), "images") as bar:
            advance: Callable[[int], None] = bar.set
            seen = inspect_images(images_here(config), data.fit, data.channels, advance)
            return replace(seen, config=images_shown(config))

    try:
        now = look_at_all(experiment, look)
    except (InputError, OSError) as problem:
        found.report(f"the image sets cannot be used any more: {reason_of(problem)}")
        return
    for role, manifest in now.items():
        found.checked["images"] += len(manifest)
        if manifest.digest != known[role].digest:
            found.report(f"data.{role}: the images are not those that the results were made from")
        elif manifest.digest_of_towards != known[role].digest_of_towards:
            found.report(f"data.{role}: the classes to lead to are not those that the results were made with")
        elif role == "train" and manifest.originals != known[role].originals and _trains_on_originals(blueprint):
            found.report("data.train: the files show the same after the crop, but are not those that were cropped")


def check_made_elsewhere(blueprint: Blueprint, found: Verification) -> None:
    """Reads all adversarial images that were made elsewhere anew, and compares their hash with the one on record."""
    test = blueprint.inspected.manifests["test"]
    for name, made in blueprint.experiment.made_elsewhere.items():
        try:
            now = digest_of(open_made_images(made_here(made), test.ids, test.shape), test)
        except (InputError, OSError) as problem:
            found.report(f"attacks.{name}: its images cannot be used any more: {reason_of(problem)}")
            continue
        found.checked["images"] += len(test)
        if now != blueprint.inspected.attacks.made[name]:
            found.report(f"attacks.{name}: the images are not those that were evaluated")


def _trains_on_originals(blueprint: Blueprint) -> bool:
    makings = [*blueprint.trainings(), *blueprint.alignments()]
    return any(making.align.augment.needs_originals for making in makings)


def check_networks(blueprint: Blueprint, networks: LoadedNetworks, found: Verification) -> set[str]:
    """Hashes every network's weights, and checks the cards of those made here; returns those that cannot be loaded."""
    unreadable = set()
    for name, network in blueprint.networks.items():
        if network.digest is None:  # a network that this experiment does not need, and never made
            continue
        found.checked["networks"] += 1
        try:
            if network.stored:
                digest = hash_weights(load_safetensors(blueprint.store.read(network.stored)))
            else:
                net = networks.network(name).net
                digest = hash_state(net) if network.config.brings_weights else hash_weights(net.state_dict())
        except Exception as problem:  # of the user's code, and a damaged file can raise almost any
            found.report(f"{name}: its weights cannot be read ({reason_of(problem)})")
            unreadable.add(name)
            continue
        if digest != network.digest:
            found.report(f"{name}: its weights are not those that the results were made with")
    for making in (*blueprint.trainings(), *blueprint.alignments()):
        if blueprint.is_made(making.name):
            _check_card(blueprint, making, found)
    return unreadable


def _check_card(blueprint: Blueprint, making: Making, found: Verification) -> None:
    """The card says what others will take the network for, so it has to be true."""
    card = blueprint.store.read_json(f"{making.folder}/card.json") or {}
    path = f"{making.folder}/card.json"
    try:
        is_inputs = fingerprint_of(card.get("inputs")) == making.fingerprint
        described = _appearance(model_config_from(card["model"]))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        found.report(f"{path}: not a card that Witness wrote ({reason_of(problem)})")
        return
    if not is_inputs:
        found.report(f"{path}: the inputs that it records are not those that its fingerprint stands for")
    built = as_built(making.model, blueprint.experiment.data.classes_count, blueprint.inspected.shape[0])
    # Cards of older versions of Witness hold the settings as they were written.
    if card.get("name") != making.name or described not in (_appearance(built), _appearance(making.model)):
        found.report(f"{path}: describes another network than the one that was made here")
    curves = card.get("curves")
    if curves is not None and curves != _hash(blueprint, f"{making.folder}/curves.csv"):
        found.report(f"{making.folder}/curves.csv: not the curve that the card was written with")


def _appearance(config: ModelConfig) -> list[Any]:
    """What others see of a network. A hub's revision is not compared: a later one may have the same weights."""
    config = replace(config, timm=config.timm and config.timm.partition("@")[0])
    return [config.architecture, config.mean, config.std, config.input_size]


def _hash(blueprint: Blueprint, path: str) -> str | None:
    try:
        return blueprint.store.sha256(path)
    except OSError:
        return None
