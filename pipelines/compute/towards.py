"""The classes that targeted attacks lead test images to, in a worker's hands."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align_core.target_classes import least_likely_classes, next_classes, random_classes
from pipelines.compute.images import TestImages
from pipelines.compute.loading import LoadedNetworks


@dataclass(frozen=True)
class Towards:
    """How the class of each test image is found.

    Args:
        images: the test images, in chunks.
        column: the class that the image set gives each of them; None where no attack asks for it.
        source: the experiment's source, whose least likely classes are those for all surrogates, whatever their own
            source is.
        classes, seed: number of classes, and what decides random ones.
    """

    images: TestImages
    column: Sequence[int] | None
    source: str
    classes: int
    seed: int

    def known(self, rule: str, chunk: int) -> Tensor | None:
        """The classes of a chunk, int64 [B]; None under the rule `least_likely`, which needs a network."""
        labels_B = torch.tensor(self.images.labels_of(chunk))
        if rule == "next":
            return next_classes(labels_B, self.classes)
        if rule == "random":
            return random_classes(labels_B, self.images.ids_of(chunk), self.classes, self.seed)
        if rule == "column":
            assert self.column is not None, "the image set was inspected without its classes"
            rows = self.images.chunks[chunk]
            return torch.tensor(self.column[rows.start : rows.stop])
        return None

    def of_chunk(self, rule: str, chunk: int, images_BCHW: Tensor, networks: LoadedNetworks) -> Tensor:
        """The classes of a chunk, int64 [B], on the device of its clean uint8 images.

        Raises FloatingPointError where the source's logits are NaN.
        """
        known_B = self.known(rule, chunk)
        if known_B is not None:
            return known_B.to(images_BCHW.device)
        labels_B = torch.tensor(self.images.labels_of(chunk), device=images_BCHW.device)
        return least_likely_classes(self.source_logits(images_BCHW, networks), labels_B)

    def source_logits(self, images_BCHW: Tensor, networks: LoadedNetworks) -> Tensor:
        """The source's logits [B, K] on clean uint8 images."""
        with torch.no_grad():
            logits_BK: Tensor = networks.mean_of([self.source])(images_BCHW.to(torch.float32) / 255)
        return logits_BK
