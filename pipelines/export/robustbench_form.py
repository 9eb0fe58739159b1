"""One tensor, as RobustBench takes new evaluations: float pixels in [0, 1], NCHW, saved by torch.

It holds the images alone. Labels, ids and classes to lead to stand in the manifest beside it.
"""

from collections.abc import Iterator

import torch

from pipelines.export.exportable import Chunk, Exportable
from pipelines.storage.store import Store


def write(images: Exportable, store: Store, path: str) -> None:
    """Writes the file. Memory holds all images as float32: four bytes for every value. Raises OSError."""
    pixels_NCHW = torch.empty(len(images), *images.shape)
    for rows, chunk in zip(images.chunks, images.read(), strict=True):
        pixels_NCHW[rows.start : rows.stop] = torch.tensor(chunk.pixels_BCHW) / 255
    with store.writing(path) as stream:
        try:
            torch.save(pixels_NCHW, stream)
        except RuntimeError as problem:  # torch says where in its own code it failed, and not what the disk said
            if isinstance(problem.__context__, OSError):
                raise problem.__context__ from problem
            raise


def read(images: Exportable, store: Store, path: str) -> Iterator[Chunk]:
    """Decodes what was written, in chunks as long as those of `images`, from which the labels and ids are taken."""
    with store.open_input(path) as stream:
        pixels_NCHW = torch.load(stream, map_location="cpu", weights_only=True)
    if (
        not isinstance(pixels_NCHW, torch.Tensor)
        or pixels_NCHW.dtype != torch.float32
        or len(pixels_NCHW) != len(images)
    ):
        raise ValueError(f"it holds no float32 tensor of {len(images)} images")
    for rows, stored in zip(images.chunks, images.read(), strict=True):
        written_BCHW = pixels_NCHW[rows.start : rows.stop] * 255
        rounded_BCHW = written_BCHW.round()
        if not torch.allclose(written_BCHW, rounded_BCHW, rtol=0, atol=1e-3):
            raise ValueError("it holds pixels between the values of 8 bits")
        yield stored._replace(pixels_BCHW=rounded_BCHW.to(torch.uint8).numpy())
