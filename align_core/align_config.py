"""The settings of an alignment, and which of them decide its result.

Nothing here imports torch, so that commands which only read settings start fast.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from align_core.errors import InputError
from align_core.losses import LOSSES
from align_core.model_config import TrainConfig, check_length
from align_core.settings import Settings

_MOST_WORKERS = 10_000


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Settings):
    """How training images are augmented.

    Args:
        crop: `none`; `pad4`: 4 black pixels on every side, then a random crop of the original size; `random_resized`:
            a random crop of 8 to 100 % of the area of the original picture, not of its centre crop, resized to the
            image size with the interpolation of the image set.
        flip: whether each image is mirrored left to right with probability one half.
    """

    crop: Literal["none", "pad4", "random_resized"] = "pad4"
    flip: bool = True

    @property
    def needs_originals(self) -> bool:
        """Whether the pictures themselves decide what is seen, and not their centre crops."""
        return self.crop == "random_resized"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """The optimiser and its hyperparameters, as PyTorch defines them. `momentum` and `nesterov` apply to `sgd` only.

    The learning rate starts at `lr` and falls to 0 along a cosine, step by step, without warm-up. Raises ValueError for
    values out of range.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ValueError("lr must be above 0, weight_decay 0 or more, momentum at least 0 and below 1")
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(Settings):
    """How a source is aligned to its witnesses.

    The defaults are those of the code that Ma et al. (2024) released, for convolutional networks. Raises ValueError for
    values out of range.

    Args:
        loss: a name in `losses.LOSSES`.
        temperature: divides the logits of source and witness before the softmax.
        weight: factor of the alignment loss in the total loss.
        label_weight: factor of the cross-entropy on the labels in the total loss.
        epochs: passes over the training images.
        batch_size: images per step, over all data-parallel workers together.
        workers: data-parallel workers. Floating-point sums depend on their number, and so do the aligned weights.
        optimizer: the optimiser, its learning rate and its other hyperparameters.
        clip_grad_norm: largest L2 norm of the gradient; None sets no limit.
        batchnorm: `update` trains BatchNorm layers like all others. `frozen` keeps their statistics, scale and shift.
            It is meant for sources whose BatchNorm was folded into the convolutions: the accuracy of such a source
            falls to chance at once if the layers that remain are updated.
        augment: augmentation of the training images.
        checkpoint_steps: steps between checkpoints within an epoch. Every epoch ends with one, too.
    """

    loss: str = "kl"
    temperature: float = 4.0
    weight: float = 1.0
    label_weight: float = 0.0
    epochs: int = 1
    batch_size: int = 128
    workers: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    clip_grad_norm: float | None = None
    batchnorm: Literal["update", "frozen"] = "update"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    checkpoint_steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise ValueError(f"there is no alignment loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.weight < 0 or self.label_weight < 0 or self.weight + self.label_weight == 0:
            raise ValueError("weight and label_weight must be 0 or more, and not both 0")
        if min(self.epochs, self.batch_size, self.workers, self.checkpoint_steps) < 1:
            raise ValueError("epochs, batch_size, workers and checkpoint_steps must be at least 1")
        check_length(self.epochs, self.batch_size)
        if self.workers > _MOST_WORKERS:
            raise ValueError(f"workers must be at most {_MOST_WORKERS:,}, and is {self.workers:,}")
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of workers {self.workers}")
        if self.clip_grad_norm is not None and self.clip_grad_norm <= 0:
            raise ValueError("clip_grad_norm must be above 0, or null")

    def steps(self, images: int) -> int:
        """Number of updates over a training set of `images` images: an epoch drops those that fill no batch.

        Raises InputError where there are fewer images than workers.
        """
        if images < self.workers:
            raise InputError(f"{images} training images are too few for {self.workers} workers")
        batch = min(self.batch_size, images // self.workers * self.workers)
        return self.epochs * (images // batch)

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the aligned weights; fingerprints are computed from them.

        Checkpoints change no weight, and the loss and its temperature have no effect where `weight` is 0: changing them
        must not cause a model to be made again.
        """
        without = {"checkpoint_steps"} | (set() if self.weight else {"loss", "temperature"})
        return {name: value for name, value in asdict(self).items() if name not in without}


@dataclass(frozen=True)
class Training:
    """What of an alignment decides whether a network can be trained so: a trial needs no more.

    Attributes:
        optimizer, batchnorm: as in AlignConfig.
        rows: images that one worker takes at a step.
    """

    optimizer: Literal["sgd", "adamw"]
    batchnorm: Literal["update", "frozen"]
    rows: int


def training_of(align: AlignConfig, images: int) -> Training:
    """What a trial needs to know of an alignment on a training set of `images` images."""
    rows = min(align.batch_size, images) // align.workers
    return Training(align.optimizer.name, align.batchnorm, max(1, rows))


def training_on_labels(train: TrainConfig) -> AlignConfig:
    """The settings that train a model from random weights, with cross-entropy on the labels and no witness.

    Such training runs through the same code as an alignment, whose `weight` is 0 here and `label_weight` 1.
    """
    return AlignConfig(
        weight=0.0,
        label_weight=1.0,
        epochs=train.epochs,
        batch_size=train.batch_size,
        optimizer=OptimizerConfig(name="adamw", lr=train.lr, weight_decay=train.weight_decay),
        clip_grad_norm=1.0,
        augment=AugmentConfig(crop=train.crop, flip=train.flip),
    )
