"""What an experiment consists of: networks to be made, tables to be filled, each with what determines it.

From this and one listing of the store follows what is there, what is missing and what is stale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

from align_core.align_config import AlignConfig, training_on_labels
from align_core.data import chunked
from align_core.model_config import ModelConfig
from pipelines.compute.loading import NetworkLoader
from pipelines.compute.networks import Network
from pipelines.compute.ray_data import TestImages
from pipelines.experiment.config import Experiment
from pipelines.experiment.surrogates import Surrogate, surrogates_of
from pipelines.stages.inspect import Inspected
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store, fingerprint_of

# Raised by hand when the code of a stage changes what it produces.
REVISIONS = {"align": 1, "craft": 1, "evaluate": 1, "trial": 1}
SELF = "@self"

State = Literal["missing", "partial", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Making:
    """A network that is made here: trained from random weights, or fine-tuned from a source.

    Attributes:
        name: of the network. folder: in the store. inputs: what determines it.
        start: the network it starts from; None for random weights.
        witnesses: the networks it is aligned to. align: the settings. model: architecture and preprocessing.
    """

    name: str
    folder: str
    inputs: dict[str, Any]
    start: str | None
    witnesses: tuple[str, ...]
    align: AlignConfig
    model: ModelConfig

    @property
    def fingerprint(self) -> str:
        """Of the inputs."""
        return fingerprint_of(self.inputs)

    @property
    def run_name(self) -> str:
        """Of the Ray Train run: changed settings can never continue an old checkpoint."""
        return f"{self.name}-{self.fingerprint}"


Look = tuple[tuple[str, ...], ChunkedTable]
"""Networks whose mean predicts on some images, and the table of the predictions."""


@dataclass(frozen=True)
class Cell:
    """One (surrogate, attack, target) with its table; target `@self` is the surrogate itself."""

    surrogate: str
    attack: str
    target: str
    table: ChunkedTable


class Blueprint:
    """The whole experiment, as settings and store determine it. `refresh` takes up networks that were made since."""

    def __init__(self, experiment: Experiment, inspected: Inspected, store: Store) -> None:
        self.experiment, self.inspected, self.store = experiment, inspected, store
        self.surrogates = surrogates_of(experiment)
        self.networks: dict[str, Network] = dict(inspected.networks)
        self.refresh()

    def refresh(self) -> None:
        """Looks for networks that were made here and are what the settings ask for."""
        for making in chain(self.trainings(), self.alignments()):  # lazily: alignments start from trained models
            card = self.store.read_json(f"{making.folder}/card.json")
            fits = card is not None and card["fingerprint"] == making.fingerprint
            digest = str(card["weights"]) if card is not None and fits else None
            stored = f"{making.folder}/model.safetensors"
            self.networks[making.name] = Network(making.name, making.model, digest, stored)

    @cached_property
    def by_name(self) -> dict[str, Surrogate]:
        """Surrogates by name."""
        return {surrogate.name: surrogate for surrogate in self.surrogates}

    @cached_property
    def trained_for_run(self) -> list[str]:
        """The models that are trained here and that a run needs: validation targets, only a sweep asks."""
        needed = {*self.experiment.targets}
        for surrogate in self.surrogates:
            needed |= {surrogate.source, *surrogate.members, *surrogate.witnesses}
        return [name for name, config in self.experiment.models.items() if config.train and name in needed]

    @cached_property
    def chunks(self) -> list[range]:
        """Positions of the test images in each chunk."""
        return chunked(self.inspected.manifests["test"].ids, self.experiment.compute.chunk)

    @property
    def rows(self) -> list[int]:
        """Images of each chunk."""
        return [len(chunk) for chunk in self.chunks]

    def test_images(self) -> TestImages:
        """The test images in their chunks, as workers need them."""
        manifest, data = self.inspected.manifests["test"], self.experiment.data
        return TestImages(data.test, data.image_size, manifest.ids, manifest.labels.tolist(), self.chunks)

    def loader(self) -> NetworkLoader:
        """How workers load networks."""
        return NetworkLoader(
            self.store,
            self.networks,
            self.experiment.data.classes,
            self.inspected.shape[0],
            self.experiment.compute.precision,
        )

    def trainings(self) -> Iterator[Making]:
        """The models that are trained from random weights."""
        for name, config in self.experiment.models.items():
            if config.train is not None:
                settings = training_on_labels(config.train)
                inputs = self._making_inputs(settings) | {
                    "architecture": config.architecture,
                    "preprocessing": [config.mean, config.std, config.input_size],
                    "independent": name,  # models of one architecture differ by their random weights
                }
                yield Making(
                    name=name, folder=f"trained/{name}", inputs=inputs, start=None, witnesses=(), align=settings,
                    model=config,
                )  # fmt: skip

    def alignments(self) -> Iterator[Making]:
        """The surrogates that are fine-tuned and whose source and witnesses are there."""
        for surrogate in self.surrogates:
            if surrogate.align is None:
                continue
            source = self.networks[surrogate.source]
            witnesses = [self.networks[name] for name in surrogate.witnesses]
            if any(network.digest is None for network in (source, *witnesses)):
                continue
            inputs = self._making_inputs(surrogate.align) | {
                "source": source.identity,
                "witnesses": [witness.identity for witness in witnesses],
            }
            yield Making(
                name=surrogate.name,
                folder=f"models/{surrogate.name}",
                inputs=inputs,
                start=surrogate.source,
                witnesses=surrogate.witnesses,
                align=surrogate.align,
                model=source.config,
            )

    def _making_inputs(self, settings: AlignConfig) -> dict[str, Any]:
        return {
            "stage": "align",
            "revision": REVISIONS["align"],
            "settings": settings.deciding,
            "images": self.inspected.manifests["train"].digest,
            "classes": self.experiment.data.classes,
            "seed": self.experiment.seed,
            "precision": self.experiment.compute.precision,
        }

    def clean_name(self, surrogate: Surrogate) -> str:
        """Whose clean predictions a surrogate's are: its one member's, or its own."""
        return surrogate.members[0] if len(surrogate.members) == 1 else surrogate.name

    def clean(self) -> dict[str, Look]:
        """Name -> (members, table) of everything that predicts on clean test images."""
        wanted: dict[str, tuple[str, ...]] = {
            name: (name,) for name in (*self.experiment.targets, *self.experiment.witnesses)
        }
        for surrogate in self.surrogates:
            wanted[self.clean_name(surrogate)] = surrogate.members
            wanted |= {name: (name,) for name in surrogate.witnesses}
        return {
            name: (members, ChunkedTable(f"clean/{name}", self._evaluation_inputs(members) | {"stage": "clean"}))
            for name, members in wanted.items()
        }

    def adversarial(self, surrogate: Surrogate, attack: str) -> ChunkedTable:
        """The adversarial images of one surrogate and attack."""
        inputs = {
            "stage": "craft",
            "revision": REVISIONS["craft"],
            "surrogate": self._identities(surrogate.members),
            "attack": self.experiment.attacks[attack].deciding,
            "images": self.inspected.manifests["test"].digest,
            "seed": self.experiment.seed,
            "chunk": self.experiment.compute.chunk,
            "precision": self.experiment.compute.precision,
        }
        return ChunkedTable(f"adversarial/{surrogate.name}/{attack}", inputs)

    def cells(self) -> Iterator[Cell]:
        """Every cell: surrogate by surrogate, attack by attack, itself and then the targets."""
        for surrogate in self.surrogates:
            for attack in self.experiment.attacks:
                adversarial = self.adversarial(surrogate, attack)
                for target in (SELF, *self.experiment.targets):
                    members = surrogate.members if target == SELF else (target,)
                    inputs = self._evaluation_inputs(members) | {"stage": "outcome", "images": adversarial.fingerprint}
                    table = ChunkedTable(f"outcomes/{surrogate.name}/{attack}/{target}", inputs)
                    yield Cell(surrogate.name, attack, target, table)

    def _evaluation_inputs(self, members: Sequence[str]) -> dict[str, Any]:
        return {
            "revision": REVISIONS["evaluate"],
            "model": self._identities(members),
            "images": self.inspected.manifests["test"].digest,
            "chunk": self.experiment.compute.chunk,
            "precision": self.experiment.compute.precision,
        }

    def _identities(self, members: Sequence[str]) -> list[dict[str, Any]]:
        return [self.networks[member].identity for member in members]

    def looks(self) -> dict[tuple[str, str], list[Look]]:
        """(surrogate, attack) -> who looks at its images."""
        found: dict[tuple[str, str], list[Look]] = {}
        for cell in self.cells():
            found.setdefault((cell.surrogate, cell.attack), []).append((self.members_of(cell), cell.table))
        return found

    def members_of(self, cell: Cell) -> tuple[str, ...]:
        """The networks whose mean predicts in a cell."""
        return self.by_name[cell.surrogate].members if cell.target == SELF else (cell.target,)
