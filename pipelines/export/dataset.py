"""Adversarial images, and the test images before any attack, as a torch `Dataset`, for PyTorch code of any kind."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from align_core.errors import InputError
from pipelines.experiment.config import Experiment
from pipelines.export.clean_images import clean_images
from pipelines.export.crafted_images import finished_images
from pipelines.export.exportable import Exportable
from pipelines.progress import Progress
from pipelines.run.request import Request, open_blueprint


class _InMemory(Dataset[tuple[Tensor, int]]):
    """Each item is a float tensor [C, H, W] in [0, 1], and its label.

    The images are read once, and memory holds them as uint8, so that workers of a `DataLoader` share them. An item of
    float32 times 255 is the image of 8 bits, without rounding away anything.
    """

    def __init__(self, images: Exportable) -> None:
        chunks = list(images.read())
        self.ids = list(images.ids)
        self.labels_N = torch.from_numpy(np.array(images.labels_N))
        towards = [chunk.towards_B for chunk in chunks if chunk.towards_B is not None]
        self.towards_N = torch.from_numpy(np.concatenate(towards)) if towards else None
        self.pixels_NCHW = torch.from_numpy(np.concatenate([chunk.pixels_BCHW for chunk in chunks]))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.pixels_NCHW[position].to(torch.float32) / 255, int(self.labels_N[position])


class AdversarialImages(_InMemory):
    """The images of one surrogate and attack: each a float tensor [C, H, W] in [0, 1], and its label.

    They are read once, and memory holds them as uint8, so that workers of a `DataLoader` share them. An item of float32
    times 255 is the stored image of 8 bits, without rounding away anything.

    Args:
        source: the experiment file, or an experiment that is checked already.
        surrogate, attack: names in the experiment. Their images must be finished; evaluations and report need not be.
        overrides, output: as for `load_results`.

    Raises InputError for a name that there is not, and RunFailed where the images are not finished.

    Attributes:
        ids: the image ids, in order.
        labels_N: int64 [N].
        towards_N: the classes that the attack led to, int64 [N]; None unless it is targeted.
        pixels_NCHW: the images as they are stored, uint8 [N, C, H, W].
    """

    def __init__(
        self,
        source: str | Path | Experiment,
        surrogate: str,
        attack: str,
        *,
        overrides: Sequence[str] = (),
        output: str | Path | None = None,
    ) -> None:
        found = finished_images(open_blueprint(_request(source, overrides, output)), [surrogate], [attack])
        if len(found) > 1:
            names = ", ".join(own.surrogate.name for own in found)
            raise InputError(f"{surrogate} stands for several surrogates, one for each seed; name one of {names}")
        super().__init__(found[0])


class CleanTestImages(_InMemory):
    """The test images as Witness uses them, before any attack: each a float tensor [C, H, W] in [0, 1], and its label.

    Nothing of the experiment has to be finished, and no model has to be there. The arguments and attributes are those
    of `AdversarialImages`; `towards_N` is None unless an attack takes classes to lead to from the image set.

    Raises InputError.
    """

    def __init__(
        self, source: str | Path | Experiment, *, overrides: Sequence[str] = (), output: str | Path | None = None
    ) -> None:
        super().__init__(clean_images(_request(source, overrides, output), Progress(quiet=True)))


def _request(source: str | Path | Experiment, overrides: Sequence[str], output: str | Path | None) -> Request:
    path = Path(source) if isinstance(source, str) else source
    return Request(path, tuple(overrides), None if output is None else str(output), quiet=True)
