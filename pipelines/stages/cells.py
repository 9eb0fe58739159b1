"""The tables of an experiment: adversarial images, predictions and outcomes; and what determines each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from align_core.corruptions.known import CORRUPTIONS, Corruption
from align_core.model_config import Precision
from pipelines.compute.networks import Network
from pipelines.experiment.surrogates import Surrogate
from pipelines.stages.revisions import REVISIONS
from pipelines.storage.chunked_table import ChunkedTable

SELF = "@self"
"""The target of a cell that holds a surrogate's own predictions on its adversarial images."""


class Predictions(NamedTuple):
    """The table of what the mean of some networks' logits predicts on one set of images.

    Attributes:
        members: names of the networks.
        table: image_id, label, prediction and confidence.
    """

    members: tuple[str, ...]
    table: ChunkedTable


@dataclass(frozen=True)
class Cell:
    """One (surrogate, attack, target) and the table of its outcomes; the target `@self` is the surrogate itself."""

    surrogate: str
    attack: str
    target: str
    predictions: Predictions

    @property
    def table(self) -> ChunkedTable:
        """The outcomes: a row per test image."""
        return self.predictions.table


@dataclass(frozen=True)
class TablesOverImages:
    """Makes the tables over one set of test images.

    Args:
        images: hash of the test images. chunk: images per chunk. precision: of every prediction.
        seed: of what all surrogates have in common: images that are mixed in, random classes to lead to.
        pass_rows: rows of a pass while crafting, or None for the device's own.
        towards: rule -> what decides the classes that it leads to, beyond images and seed, for rules that have such.
    """

    images: str
    seed: int
    chunk: int
    precision: Precision
    pass_rows: int | None
    towards: Mapping[str, Any]

    def clean(self, name: str, members: Sequence[Network]) -> ChunkedTable:
        """Predictions on the clean images."""
        inputs = self._evaluation(members, self.images) | {"stage": "clean"}
        return ChunkedTable(f"clean/{name}", inputs, {"model": _names(members)})

    def corrupted(self, name: str, members: Sequence[Network], corruption: Corruption) -> ChunkedTable:
        """Predictions on images with a corruption."""
        known = CORRUPTIONS[corruption.name]
        inputs = {
            "stage": "corrupted",
            "corruption": corruption.name,
            "corruption_revision": REVISIONS["corrupt"],
            "strength": [known.small[corruption.severity - 1], known.large[corruption.severity - 1]],
        }
        if known.draws:
            inputs |= {"seed": self.seed, "severity": corruption.severity}
        inputs = self._evaluation(members, self.images) | inputs
        return ChunkedTable(f"corrupted/{corruption}/{name}", inputs, {"model": _names(members)})

    def adversarial(
        self, surrogate: Surrogate, members: Sequence[Network], name: str, attack: Mapping[str, Any]
    ) -> ChunkedTable:
        """Adversarial images of one surrogate under one attack, of which `attack` is what decides its images."""
        inputs = {
            "stage": "craft",
            "revision": REVISIONS["craft"],
            "surrogate": [member.identity for member in members],
            "folded": _folded(members),
            "attack": attack,
            "images": self.images,
            "seed": surrogate.seed,
            "chunk": self.chunk,
            "precision": self.precision,
            "pass": self.pass_rows,
        }
        if surrogate.seed != self.seed:
            inputs["common_seed"] = self.seed
        if surrogate.combine != "logits" and len(members) > 1:
            inputs["combine"] = surrogate.combine
        if attack["towards"] in self.towards:
            inputs["towards"] = self.towards[attack["towards"]]
        return ChunkedTable(f"adversarial/{surrogate.name}/{name}", inputs, {"surrogate": _names(members)})

    def made_elsewhere(self, surrogate: Surrogate, name: str, attack: Mapping[str, Any]) -> ChunkedTable:
        """Adversarial images that were made elsewhere, of which `attack` has the settings and the hash."""
        inputs = {
            "stage": "made_elsewhere",
            "revision": REVISIONS["made_elsewhere"],
            "attack": attack,
            "images": self.images,
            "seed": surrogate.seed,
            "chunk": self.chunk,
        }
        if attack["towards"] in self.towards:
            inputs["towards"] = self.towards[attack["towards"]]
        return ChunkedTable(f"adversarial/{surrogate.name}/{name}", inputs)

    def outcomes(self, folder: str, members: Sequence[Network], adversarial: ChunkedTable) -> ChunkedTable:
        """Predictions on adversarial images; `folder` is `<surrogate>/<attack>/<target>`."""
        inputs = self._evaluation(members, adversarial.fingerprint) | {"stage": "outcome"}
        return ChunkedTable(f"outcomes/{folder}", inputs, {"model": _names(members)})

    def reasons(
        self, folder: str, networks: Sequence[Sequence[Network]], sample: int, further: Mapping[str, Any]
    ) -> ChunkedTable:
        """Reasons on a sample of the images; `folder` is `<surrogate>/<the other network>`.

        Args:
            networks: the members of the surrogate, and those of the other network.
            sample: number of images. further: what decides the rows beside.
        """
        inputs = {
            "stage": "reasons",
            "revision": REVISIONS["reasons"],
            "models": [[member.identity for member in members] for members in networks],
            "folded": [_folded(members) for members in networks],
            "images": self.images,
            "sample": sample,
            "seed": self.seed,
            "chunk": self.chunk,
            "precision": self.precision,
            "pass": self.pass_rows,
            **further,
        }
        return ChunkedTable(f"reasons/{folder}", inputs, {"models": [name for own in networks for name in _names(own)]})

    def _evaluation(self, members: Sequence[Network], images: str) -> dict[str, Any]:
        return {
            "revision": REVISIONS["evaluate"],
            "model": [member.identity for member in members],
            "folded": _folded(members),
            "images": images,
            "chunk": self.chunk,
            "precision": self.precision,
        }


def _names(members: Sequence[Network]) -> list[str]:
    return [member.name for member in members]


def _folded(members: Sequence[Network]) -> list[list[list[str]]]:
    """What is folded of each network, as JSON gives it back."""
    return [[list(names) for names in member.folded] for member in members]
