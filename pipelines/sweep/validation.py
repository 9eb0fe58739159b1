"""The figures that a sweep chooses by: the mean gain on the validation targets and the clean accuracy, both measured on
the validation images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from align_core.attacks import AttackConfig, ForeignConfig, craft
from align_core.finite import check_finite
from align_core.folding import fold
from align_core.images import Fit, ImageSetConfig
from align_core.images.decoding import Pixels
from align_core.models import Classifier, Ensemble, copy_of
from align_core.numerics import set_policy
from align_core.transfer import Counts, Flags, MeanCell, mean_over_targets, resampled_counts
from pipelines.compute.images import opened, read_as_inspected
from pipelines.compute.loading import LoadedNetworks, NetworkLoader
from pipelines.compute.others import Pool

# An upper limit on the images that are measured before a trial's end: enough for the scheduler to tell bad trials from
# good ones, at a fraction of the work.
_INTERIM_IMAGES = 256
_NONE_COUNTS = "no image is classified correctly by both the source and a validation target"


@dataclass(frozen=True)
class ValidationSetup:
    """What is measured on: N images, the targets, and the one attack. It is sent to every trial.

    Args:
        images, fit, image_ids, labels: the validation images, how they are resized, N ids and N labels.
        contents: a hash by which each image was known when the set was inspected (`Manifest.contents`).
        source: the model that the surrogate is made from. targets: the validation targets.
        attack, seed, pass_rows: how the images are crafted. chunk: the number of images in a batch.
        pool: the images that the attack may mix in.
    """

    images: ImageSetConfig
    fit: Fit
    image_ids: list[str]
    labels: list[int]
    contents: list[str]
    source: str
    targets: tuple[str, ...]
    attack: AttackConfig | ForeignConfig
    seed: int
    pass_rows: int | None
    chunk: int
    pool: Pool

    @property
    def interim_positions(self) -> range:
        """Positions of the images that are measured before a trial's end, spread evenly over the whole set."""
        return range(0, len(self.image_ids), -(-len(self.image_ids) // _INTERIM_IMAGES))


@dataclass(frozen=True)
class SurrogateOutcomes:
    """What one surrogate does to n images.

    Attributes:
        right: whether the surrogate classifies each clean image correctly, [n].
        wrong: for each target, whether it misclassifies each image that was crafted on the surrogate, [n].
    """

    right: Flags
    wrong: Mapping[str, Flags]


@dataclass(frozen=True)
class Baseline:
    """What every trial is compared with, on all N validation images.

    Attributes:
        source: the outcomes of the source as it is as surrogate.
        target_right: for each target, whether it classifies each clean image correctly, [N].
    """

    source: SurrogateOutcomes
    target_right: Mapping[str, Flags]


@dataclass(frozen=True)
class Measurement:
    """A surrogate as measured on n validation images. Rates and accuracies are in percent, gains and changes in points.

    Attributes:
        gain: the mean over the targets, with its 95 % interval over images.
        clean_accuracy: the surrogate's own. clean_change: its difference from the source's, on the same images.
        rates: the transfer rate on each target; a target that no image counts for is left out.
    """

    n: int
    gain: float
    gain_low: float
    gain_high: float
    clean_accuracy: float
    clean_change: float
    rates: Mapping[str, float]


class Validator:
    """Measures surrogates. One process holds the validation images and targets in it and uses them for many trials.

    Args:
        setup: the images, the targets and the attack. loader: loads the networks.
        device: where the networks and images are. threads: how many CPU threads torch may use in this process.
    """

    def __init__(self, setup: ValidationSetup, loader: NetworkLoader, device: str, threads: int) -> None:
        set_policy(threads, loader.precision)
        self.setup, self.device = setup, device
        self.networks = LoadedNetworks(loader, device)
        image_set = opened(setup.images, setup.fit, loader.channels)
        self._pixels: Pixels = read_as_inspected(
            "data.validation", image_set, setup.image_ids, setup.contents, setup.images.is_by_bytes
        )
        self._labels = np.asarray(setup.labels)
        self._others = setup.pool.read(device) if setup.attack.needs_others else None
        self._folded = loader.networks[setup.source].folded
        self._resamples: dict[int, list[Counts]] = {}

    def baseline(self) -> Baseline:
        """Measures the source as it is, and the targets on the clean images.

        Raises ValueError where no image is classified correctly by both the source and a target, so that no gain could
        be measured, and FloatingPointError where logits or gradients are not finite.
        """
        everything = range(len(self._labels))
        source = self._outcomes(self.networks.mean_of([self.setup.source]), everything)
        chunks = list(self._chunks(everything))
        target_right = {
            target: np.concatenate([self._right(self.networks.mean_of([target]), chunk, target) for chunk in chunks])
            for target in self.setup.targets
        }
        if not any((source.right & right).any() for right in target_right.values()):
            raise ValueError(_NONE_COUNTS)
        return Baseline(source, target_right)

    def measure(self, surrogate: nn.Module, baseline: Baseline, positions: range) -> Measurement:
        """Measures a surrogate, which must be in eval mode, on the images at `positions`.

        Raises ValueError where none of these images counts for any target, and FloatingPointError where logits or
        gradients are not finite.
        """
        outcomes, chosen = self._outcomes(self._as_used(surrogate), positions), np.asarray(positions)
        source_right = baseline.source.right[chosen]
        cells = [
            MeanCell(source_right & baseline.target_right[target][chosen], wrong, baseline.source.wrong[target][chosen])
            for target, wrong in outcomes.wrong.items()
        ]
        _, gain = mean_over_targets(cells, self._resampled(len(chosen)))
        if gain.value is None or gain.low is None or gain.high is None:
            raise ValueError(_NONE_COUNTS)
        rates = {
            target: 100 * float(cell.wrong[cell.eligible].mean())
            for target, cell in zip(outcomes.wrong, cells, strict=True)
            if cell.eligible.any()
        }
        accuracy = 100 * float(outcomes.right.mean())
        # The change comes from the counts: as floats, 54 % - 55 % is a little more than one point.
        change = 100 * (int(outcomes.right.sum()) - int(source_right.sum())) / len(chosen)
        return Measurement(len(chosen), gain.value, gain.low, gain.high, accuracy, change, rates)

    def _as_used(self, surrogate: nn.Module) -> nn.Module:
        """A surrogate as it predicts and is crafted on in a run: with the BatchNorms of its networks folded."""
        if not self._folded:
            return surrogate
        if isinstance(surrogate, Ensemble):
            return Ensemble([self._as_used(member) for member in surrogate.members], surrogate.combine)
        return fold(copy_of(surrogate), self._folded) if isinstance(surrogate, Classifier) else surrogate

    def _resampled(self, images: int) -> list[Counts]:
        """The resamples of this many images. They are drawn once: a process measures many trials, on two sets each."""
        if images not in self._resamples:
            self._resamples[images] = list(resampled_counts(images, self.setup.seed))
        return self._resamples[images]

    def _chunks(self, positions: range) -> Sequence[range]:
        size = self.setup.chunk
        return [positions[start : start + size] for start in range(0, len(positions), size)]

    def _outcomes(self, surrogate: nn.Module, positions: range) -> SurrogateOutcomes:
        right: list[Flags] = []
        wrong: dict[str, list[Flags]] = {target: [] for target in self.setup.targets}
        for chunk in self._chunks(positions):
            right.append(self._right(surrogate, chunk, "the surrogate"))
            ids = [self.setup.image_ids[position] for position in chunk]
            images_BCHW, labels_B = self._images(chunk), torch.from_numpy(self._labels[np.asarray(chunk)])
            crafted_BCHW = craft(
                surrogate,
                images_BCHW,
                labels_B.to(self.device),
                ids,
                self.setup.attack,
                self.setup.seed,
                others=self._others,
                pass_rows=self.setup.pass_rows,
            )
            for target, found in wrong.items():
                predicted_B = self._predict(self.networks.mean_of([target]), crafted_BCHW, ids, target)
                found.append((predicted_B.cpu() != labels_B).numpy())
        return SurrogateOutcomes(
            np.concatenate(right), {target: np.concatenate(found) for target, found in wrong.items()}
        )

    def _right(self, model: nn.Module, chunk: range, whose: str) -> Flags:
        ids = [self.setup.image_ids[position] for position in chunk]
        predicted_B = self._predict(model, self._images(chunk), ids, whose).cpu().numpy()
        return np.asarray(predicted_B == self._labels[np.asarray(chunk)])

    def _images(self, chunk: range) -> torch.Tensor:
        return torch.from_numpy(self._pixels[np.asarray(chunk)]).to(self.device)

    @staticmethod
    def _predict(model: nn.Module, images_BCHW: torch.Tensor, ids: Sequence[str], whose: str) -> torch.Tensor:
        """The classes predicted. Raises FloatingPointError where the logits are not finite."""
        with torch.no_grad():
            logits_BK: torch.Tensor = model(images_BCHW.to(torch.float32) / 255, ids)
        check_finite(logits_BK, ids, whose)
        return logits_BK.argmax(dim=1)
