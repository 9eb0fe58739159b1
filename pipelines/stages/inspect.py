"""Inspects the inputs of an experiment: image sets become manifests, weights become hashes, and both are checked.

Each input is inspected once. What was found is kept in the store, by path, size and modification time, so that the next
command does not read the images and weights again. Nothing is written before every input has passed, but for shards of
what is found in a large image set (`inspect_large`).
"""

from dataclasses import dataclass, field

from align_core.images.manifest import Manifest
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.experiment.corruptions import each_corruption, notes_on_corruptions
from pipelines.progress import Progress
from pipelines.stages.input_checks import (
    check_ancestors,
    check_weights_differ,
    notes_on_beginnings,
    notes_on_families,
    notes_on_seeds,
    notes_on_sources,
)
from pipelines.stages.inspect_attacks import InspectedAttacks, inspect_attacks
from pipelines.stages.inspect_images import delete_shards, manifests
from pipelines.stages.inspect_large import LOOKS_ONLY, LargeSets
from pipelines.stages.inspect_made import inspect_made_elsewhere
from pipelines.stages.inspect_models import inspect_models
from pipelines.stages.inspect_published import Published, inspect_published
from pipelines.stages.sudden_ends import naming_sudden_ends
from pipelines.stages.trials_shown import trials_shown
from pipelines.storage.store import Store


@dataclass
class Inspected:
    """What was found out about the inputs of an experiment.

    Attributes:
        manifests: ids, labels and content hashes of each image set, by role (train, validation, test).
        networks: the models of the experiment, by name. One that is trained here has no digest yet.
        published: where networks are used otherwise than they are published.
        folding: how many BatchNorms of a model are folded where it predicts, and by how much its logits differ then.
        unused_parameters: models that leave parameters without a gradient when they are trained.
        notes: what a user should know of the models and attacks before hours are spent, a sentence each.
        attacks: the attacks whose code is not ours.
        unsaved: files, by path in the store, that this inspection found and that `save` will write.
    """

    manifests: dict[str, Manifest]
    networks: dict[str, Network]
    published: Published = field(default_factory=Published)
    folding: dict[str, dict[str, float]] = field(default_factory=dict)
    unused_parameters: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    attacks: InspectedAttacks = field(default_factory=InspectedAttacks)
    unsaved: dict[str, bytes] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.manifests["test"].shape

    def save(self, store: Store) -> None:
        """Writes what was found to the store, so that the next command need not inspect the same inputs again."""
        for path, content in self.unsaved.items():
            store.write(path, content)
        delete_shards(store, self.unsaved)
        self.unsaved.clear()


def inspect_inputs(
    experiment: Experiment,
    store: Store,
    progress: Progress,
    trust_weights: bool = True,
    trust_images: bool = True,
    large: LargeSets = LOOKS_ONLY,
) -> Inspected:
    """Inspects every image set, model and attack, or reads from the store what is known of them, and checks them all.

    Files of weights, or of images, that are trusted are not read again where their path, size and modification time are
    unchanged. Writes nothing but, where `large` says so, shards of what is found in large image sets. Raises
    InputError, naming the setting, for the first input that cannot be used.
    """
    found, unsaved = manifests(experiment, store, progress, trust_images, large)
    inspected = Inspected(found, {}, unsaved=unsaved)
    each_corruption(experiment.corruptions, inspected.shape[0])
    inspected.attacks = inspect_attacks(experiment, store, inspected.shape)
    inspect_made_elsewhere(experiment, store, found["test"], progress, trust_images, inspected.attacks)
    fetching = progress.fetching
    with trials_shown(progress) as shown, naming_sudden_ends() as named:
        models = inspect_models(experiment, store, inspected.manifests, shown, named, trust_weights, fetching)
    inspected.networks |= models.networks
    inspected.unused_parameters, inspected.notes = models.unused_parameters, models.notes + inspected.attacks.notes
    inspected.folding = models.folding
    configs = {name: network.config for name, network in models.networks.items()}
    inspected.published, new = inspect_published(experiment, configs, store)
    inspected.unsaved |= models.unsaved | inspected.attacks.unsaved | new
    check_weights_differ(experiment, inspected.networks)
    check_ancestors(experiment, inspected.networks, models.ancestors)
    inspected.notes += notes_on_sources(experiment, inspected.networks, models.ancestors)
    inspected.notes += [*notes_on_beginnings(experiment, inspected.networks), *notes_on_seeds(experiment)]
    inspected.notes += notes_on_families(experiment)
    inspected.notes += notes_on_corruptions(experiment.corruptions, inspected.shape[0])
    return inspected
