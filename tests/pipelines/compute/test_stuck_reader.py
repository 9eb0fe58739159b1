"""A process that reads training images and hangs, as on a disk that does not answer, is not waited for for ever."""

import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align_core.align_config import AlignConfig
from align_core.batches import Batches
from align_core.images import Fit, ImageSetConfig, open_image_set
from align_core.images.decoding import Picture
from pipelines.compute.around import Around
from pipelines.compute.reading import batches_on

COUNT = 12


class Hanging(Around):
    """An image set of which one image is never read."""

    def decoded(self, image_id: str) -> Picture:
        if image_id == f"a/{COUNT - 1:02d}.png":
            time.sleep(600)
        return super().decoded(image_id)


def test_a_reader_that_hangs_is_named_after_the_patience(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(COUNT):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / "a" / f"{number:02d}.png")
    images = Hanging(open_image_set(ImageSetConfig(kind="folder", path=str(tmp_path)), Fit(8), 1))
    ids, _ = images.listing()
    batches = Batches(images, ids, [0] * COUNT, AlignConfig(batch_size=2, epochs=1), seed=0)
    (hangs,) = (step for step in range(len(batches)) if ids[-1] in batches.ids_of(step))
    coming = batches_on("cpu", batches, range(len(batches)), 1, is_encoded=True, patience=2.0)
    assert [len(labels_B) for _, labels_B in islice(coming, hangs)] == [2] * hangs
    with pytest.raises(TimeoutError, match=r"^no batch of data\.train was read in 2 s \(compute\.patience\)"):
        next(coming)
