"""What a sweep chooses by: the mean gain on the validation targets, and clean accuracy, on the validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from align_core.attacks import AttackConfig, craft
from align_core.data import ImageSetConfig, read_images
from align_core.decoding import Pixels
from align_core.transfer import Flags, MeanCell, mean_over_targets, resampled_counts
from pipelines.compute.images import opened
from pipelines.compute.loading import LoadedNetworks, NetworkLoader, use_threads

# What is looked at while a trial goes on: enough to tell the hopeless, and a fraction of the work.
_FEW = 256
_NONE_COUNTS = "no image is classified correctly by both the source and a validation target"


@dataclass(frozen=True)
class Validation:
    """Images, targets and the one attack; sent to every trial.

    Args:
        images, image_size, image_ids, labels: the validation images, N of them.
        source: the model that is aligned. targets: the validation targets.
        attack, seed: what is crafted. chunk: images of one batch.
    """

    images: ImageSetConfig
    image_size: int
    image_ids: list[str]
    labels: list[int]
    source: str
    targets: tuple[str, ...]
    attack: AttackConfig
    seed: int
    chunk: int

    @property
    def few(self) -> range:
        """Positions of the images that are looked at while a trial goes on, spread over the whole set."""
        return range(0, len(self.image_ids), -(-len(self.image_ids) // _FEW))


@dataclass(frozen=True)
class View:
    """What one surrogate does to n images.

    Attributes:
        right: whether the surrogate classifies each clean image correctly, [n].
        wrong: target -> whether it is wrong on the image crafted on the surrogate, [n].
    """

    right: Flags
    wrong: Mapping[str, Flags]


@dataclass(frozen=True)
class Baseline:
    """What every trial is measured against: the unaligned source, and which images count for which target."""

    view: View
    target_right: Mapping[str, Flags]


@dataclass(frozen=True)
class Look:
    """A surrogate as measured on n validation images; rates and gains in percent and points.

    Attributes:
        gain: the mean over the targets, with its 95 % interval over images.
        clean_accuracy: of the surrogate. clean_change: against the source.
        rates: transfer rate per target.
    """

    n: int
    gain: float
    gain_low: float
    gain_high: float
    clean_accuracy: float
    clean_change: float
    rates: Mapping[str, float]


class Bench:
    """Validation images and targets, held by one process and used for trial after trial."""

    def __init__(self, validation: Validation, loader: NetworkLoader, device: str, threads: int) -> None:
        use_threads(threads)
        self.validation, self.device = validation, device
        self.networks = LoadedNetworks(loader, device)
        image_set = opened(validation.images, validation.image_size)
        self._pixels: Pixels = read_images(image_set, validation.image_ids)
        self._labels = np.asarray(validation.labels)

    def baseline(self) -> Baseline:
        """The unaligned source, and the clean predictions of the targets."""
        everything = range(len(self._labels))
        view = self._view(self.networks.network(self.validation.source), everything)
        chunks = list(self._chunks(everything))
        right = {
            target: np.concatenate([self._right(self.networks.network(target), chunk) for chunk in chunks])
            for target in self.validation.targets
        }
        if not any((view.right & target_right).any() for target_right in right.values()):
            raise ValueError(_NONE_COUNTS)
        return Baseline(view, right)

    def look(self, surrogate: nn.Module, baseline: Baseline, positions: range) -> Look:
        """Measures a surrogate in eval mode on the images at `positions`."""
        view, chosen = self._view(surrogate, positions), np.asarray(positions)
        source_right = baseline.view.right[chosen]
        cells = [
            MeanCell(source_right & baseline.target_right[target][chosen], wrong, baseline.view.wrong[target][chosen])
            for target, wrong in view.wrong.items()
        ]
        _, gain = mean_over_targets(cells, resampled_counts(len(chosen), self.validation.seed))
        if gain.value is None or gain.low is None or gain.high is None:
            raise ValueError(_NONE_COUNTS)
        rates = {
            target: 100 * float(cell.wrong[cell.eligible].mean())
            for target, cell in zip(view.wrong, cells, strict=True)
            if cell.eligible.any()
        }
        accuracy = 100 * float(view.right.mean())
        # counted, not subtracted: 54 % - 55 % is a little more than a point
        change = 100 * (int(view.right.sum()) - int(source_right.sum())) / len(chosen)
        return Look(len(chosen), gain.value, gain.low, gain.high, accuracy, change, rates)

    def _chunks(self, positions: range) -> Sequence[range]:
        size = self.validation.chunk
        return [positions[start : start + size] for start in range(0, len(positions), size)]

    def _view(self, surrogate: nn.Module, positions: range) -> View:
        right, wrong = [], {target: [] for target in self.validation.targets}  # type: ignore[var-annotated]
        for chunk in self._chunks(positions):
            right.append(self._right(surrogate, chunk))
            ids = [self.validation.image_ids[position] for position in chunk]
            images_BCHW, labels_B = self._images(chunk), torch.from_numpy(self._labels[np.asarray(chunk)])
            crafted_BCHW = craft(
                surrogate, images_BCHW, labels_B.to(self.device), ids, self.validation.attack, self.validation.seed
            )
            for target, found in wrong.items():
                predicted_B = self._predict(self.networks.network(target), crafted_BCHW)
                found.append((predicted_B.cpu() != labels_B).numpy())
        return View(np.concatenate(right), {target: np.concatenate(found) for target, found in wrong.items()})

    def _right(self, model: nn.Module, chunk: range) -> Flags:
        return np.asarray(self._predict(model, self._images(chunk)).cpu().numpy() == self._labels[np.asarray(chunk)])

    def _images(self, chunk: range) -> torch.Tensor:
        return torch.from_numpy(self._pixels[np.asarray(chunk)]).to(self.device)

    @staticmethod
    def _predict(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits_BK: torch.Tensor = model(images_BCHW.to(torch.float32) / 255)
        return logits_BK.argmax(dim=1)
