"""Adversarial images as the stages after crafting read them: a chunk of a finished table, or what is wrong with it."""

from collections.abc import Sequence

import pyarrow as pa

from align_core.errors import reason_of
from align_core.images.decoding import Pixels
from pipelines.compute.images import adversarial_images
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store


def crafted_chunk(store: Store, table: ChunkedTable, chunk: int, ids: Sequence[str]) -> Pixels:
    """The adversarial images of a chunk, uint8 [B, C, H, W], in the order of these ids.

    Raises ValueError if they are damaged or not the expected ones.
    """
    mend = "move that folder away, and `witness run` crafts it anew"
    try:
        rows = table.read_chunk(store, chunk, len(ids))
    except (OSError, pa.ArrowException) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # the disk or the store failed, not the file
        raise ValueError(f"{table.folder}: chunk {chunk} is damaged ({reason_of(problem)}); {mend}") from problem
    if rows["image_id"].to_pylist() != list(ids):
        raise ValueError(f"{table.folder}: chunk {chunk} does not hold the images that it should; {mend}")
    return adversarial_images(rows)
