"""The test images as Witness uses them, before any attack: what images made elsewhere are made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from align_core.images.image_set import chunked
from align_core.images.manifest import Manifest
from pipelines.compute.images import opened, read_as_inspected
from pipelines.experiment.config import Experiment
from pipelines.export.exportable import Chunk, Exportable
from pipelines.progress import Progress
from pipelines.run.request import Request, open_manifests

_AT_ONCE = 100  # images of a chunk, whatever those of the experiment are: no result is needed, and none is changed


@dataclass(frozen=True)
class CleanImages(Exportable):
    """The N test images, resized, cropped and of 8 bits, as models and attacks get them.

    They have classes to lead to where an attack of the experiment takes these from the image set.

    Attributes:
        experiment: whose test images they are.
        test: what is known of them.
    """

    experiment: Experiment
    test: Manifest

    @property
    def title(self) -> str:
        """What they are, as a line of the result and a bar of progress say it."""
        return "clean test images"

    @property
    def place(self) -> str:
        """A name beside the folders of the surrogates."""
        return "clean"

    def about(self) -> dict[str, Any]:
        """What a manifest says of them. The fingerprint changes with their ids, labels and pixels."""
        return {"experiment": self.experiment.name, "clean": True, "fingerprint": self.test.digest}

    def read(self) -> Iterator[Chunk]:
        """The images chunk by chunk. Raises InputChangedError for one that is another than when it was inspected."""
        data, test = self.experiment.data, self.test
        image_set = opened(data.test, data.fit, self.shape[0])
        for rows in self.chunks:
            part = slice(rows.start, rows.stop)
            pixels_BCHW = read_as_inspected("data.test", image_set, test.ids[part], test.contents[part])
            towards_B = None if test.towards is None else test.towards[part]
            yield Chunk(test.ids[part], test.labels[part], towards_B, pixels_BCHW)

    def towards(self) -> npt.NDArray[np.int64] | None:
        """The classes that the image set lists, int64 [N]; None where no attack asks it for them."""
        return self.test.towards


def clean_images(request: Request, progress: Progress) -> CleanImages:
    """The test images of an experiment, of which nothing but the image sets has to be there.

    All image sets are inspected, since channels, classes and duplicates depend on all of them. Raises InputError.
    """
    experiment, manifests = open_manifests(request, progress)
    test = manifests["test"]
    return CleanImages(
        ids=test.ids,
        labels_N=test.labels,
        chunks=chunked(test.ids, _AT_ONCE),
        shape=test.shape,
        class_names=test.class_names,
        is_targeted=test.towards is not None,
        experiment=experiment,
        test=test,
    )
