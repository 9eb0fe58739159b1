"""Adversarial images in a real table, without an experiment: for tests of the forms in which they are exported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.experiment.surrogates import Surrogate
from pipelines.export.crafted_images import CraftedImages
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

IDS = ("bird/1.JPEG", "cat/1.png", "cat/10.png", "cat/2.png", "dog, the 3rd")


def images_by_hand(
    folder: Path,
    channels: int = 3,
    targeted: bool = False,
    ids: Sequence[str] = IDS,
    class_names: Sequence[str] | None = None,
) -> CraftedImages:
    """Random images of 5 x 5 pixels in chunks of three, the first of which is black and the second white."""
    store, table = Store(str(folder / "runs"), "by-hand"), ChunkedTable("adversarial/aligned/pgd", {"of": "a test"})
    pixels = np.random.default_rng(0).integers(0, 256, (len(ids), channels, 5, 5), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    labels = np.arange(len(ids)) % 3
    chunks = [range(start, min(start + 3, len(ids))) for start in range(0, len(ids), 3)]
    for number, rows in enumerate(chunks):
        part = slice(rows.start, rows.stop)
        columns = {"image_id": list(ids[part]), "label": labels[part]}
        columns["image"] = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels[part])
        if targeted:
            columns["towards"] = (labels[part] + 1) % 3
        table.write_chunk(store, number, pa.table(columns))
    assert table.finish(store, [len(rows) for rows in chunks]) == []
    return CraftedImages(
        surrogate=Surrogate(name="aligned", members=("aligned",), source="cnn", baseline="source"),
        attack="pgd",
        settings={"eps": 4 / 255, "norm": "linf"},
        table=table,
        store=store,
        ids=list(ids),
        labels_N=labels,
        chunks=chunks,
        shape=(channels, 5, 5),
        class_names=class_names,
        is_targeted=targeted,
    )


def pixels_of(images: CraftedImages) -> np.ndarray:
    """The stored pixels, uint8 [N, C, H, W], read without any code of Witness."""
    import pyarrow.parquet as pq

    table = pq.read_table(images.store.path(images.table.finished_file))
    return np.asarray(table["image"].combine_chunks().to_numpy_ndarray())
