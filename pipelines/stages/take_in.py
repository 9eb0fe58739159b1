"""Takes in adversarial images that were made elsewhere: they become tables like those of images that are crafted here.

That is done in this process, so that no other node need have the files.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from align_core.attacks import distances
from align_core.made_images import open_made_images
from align_core.similarity import structural_similarity
from pipelines.compute.here import made_here
from pipelines.compute.images import TestImages
from pipelines.failure import InputChangedError
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images
from pipelines.stages.inspect_made import read_made


def take_in_all(blueprint: Blueprint, progress: Progress) -> int:
    """Takes in what is missing; returns the number of chunks.

    Raises InputError where images cannot be read, or are others than when they were inspected. A table appears whole
    or not at all.
    """
    listing, taken = blueprint.store.listing("adversarial"), 0
    for (surrogate, attack), table in blueprint.all_adversarial().items():
        if attack not in blueprint.experiment.made_elsewhere or table.is_finished(listing):
            continue
        table.set_aside_others(blueprint.store, listing, progress.say)
        place = made_here(blueprint.experiment.made_elsewhere[attack], progress.fetching(f"attacks.{attack}"))
        with progress.stage("take in", len(blueprint.inspected.manifests["test"]), "images") as bar:
            chunks = _Chunks(blueprint, attack, place)
            first = chunks.read(0)
            with table.writing(blueprint.store, first.schema, blueprint.rows) as write:
                for number, size in enumerate(blueprint.rows):
                    write(chunks.read(number) if number else first)
                    bar.advance(size, f"{surrogate} {attack}")
                chunks.check()
        taken += len(blueprint.rows)
    return taken


class _Chunks:
    """Reads the images of one attack chunk by chunk, as rows of a table."""

    def __init__(self, blueprint: Blueprint, attack: str, place: Path) -> None:
        self.name, self.settings = attack, blueprint.experiment.made_elsewhere[attack]
        self.manifest, self.test = blueprint.inspected.manifests["test"], test_images(blueprint)
        self.place, self.images = place, open_made_images(place, self.manifest.ids, self.manifest.shape)
        self._wanted, self._digest = blueprint.inspected.attacks.made[attack], sha256()

    def read(self, chunk: int) -> pa.Table:
        """The rows of a chunk. Each is to be read once, in their order."""
        test: TestImages = self.test
        rows = test.chunks[chunk]
        pixels_BCHW = read_made(self.images, rows)
        self._digest.update(pixels_BCHW.tobytes())
        made_BCHW, clean_BCHW = torch.from_numpy(pixels_BCHW), torch.from_numpy(np.array(test.read(chunk)))
        linf_B, l2_B = distances(made_BCHW, clean_BCHW)
        columns: dict[str, Any] = {
            "image_id": test.ids_of(chunk),
            "label": pa.array(test.labels_of(chunk), pa.int64()),
        }
        if self.settings.is_targeted:
            assert self.manifest.towards is not None
            columns["towards"] = self.manifest.towards[rows.start : rows.stop]
        columns |= {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels_BCHW),
            "linf": linf_B.numpy(),
            "l2": l2_B.numpy(),
            "ssim": structural_similarity(made_BCHW, clean_BCHW).numpy(),
        }
        return pa.table(columns)

    def check(self) -> None:
        """Raises InputChangedError unless all that was read is what was inspected."""
        if self._digest.hexdigest() != self._wanted:
            raise InputChangedError(
                f"attacks.{self.name}: the images in {self.place} are not as they were when they were inspected. Run "
                "again with --rehash (in Python, rehash=True), and leave them as they are while a run is at work"
            )
