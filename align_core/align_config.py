"""The settings of an alignment, and which of them decide its result. Nothing here needs torch."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from align_core.errors import InputError
from align_core.losses import LOSSES
from align_core.model_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """crop: `none`, `pad4` (4 black pixels around, then a random crop), `random_resized`. flip: left-right, half."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    crop: Literal["none", "pad4", "random_resized"] = "pad4"
    flip: bool = True


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser; the learning rate falls to 0 along a cosine, step by step, without warm-up."""

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ValueError("lr must be above 0, weight_decay 0 or more, momentum at least 0 and below 1")
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How a source is aligned. Defaults are those of the released code (Ma et al. 2024) for CNNs.

    Args:
        loss: a name in losses.LOSSES. temperature: of both softmaxes.
        weight: of the alignment loss. label_weight: of cross-entropy on the labels.
        epochs: passes over the training images. batch_size: over all workers together.
        workers: data-parallel workers. Sums depend on it, so it is part of what the aligned model is.
        clip_grad_norm: largest norm of the gradient; None for no limit.
        batchnorm: `update`, or `frozen`: statistics, scale and shift stay (for sources whose BatchNorm was folded
            into the convolutions: left to update, such a source falls to chance at once).
        checkpoint_steps: a checkpoint at the end of every epoch, and after this many steps within one.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

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
        if self.loss not in LOSSES:
            raise ValueError(f"there is no alignment loss {self.loss!r}; there are {', '.join(LOSSES)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.weight < 0 or self.label_weight < 0 or self.weight + self.label_weight == 0:
            raise ValueError("weight and label_weight must be 0 or more, and not both 0")
        if min(self.epochs, self.batch_size, self.workers, self.checkpoint_steps) < 1:
            raise ValueError("epochs, batch_size, workers and checkpoint_steps must be at least 1")
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of workers {self.workers}")
        if self.clip_grad_norm is not None and self.clip_grad_norm <= 0:
            raise ValueError("clip_grad_norm must be above 0, or null")

    def steps(self, images: int) -> int:
        """Number of updates over a training set of so many images: an epoch drops those that fill no batch.

        Raises InputError where there are fewer images than workers.
        """
        if images < self.workers:
            raise InputError(f"{images} training images are too few for {self.workers} workers")
        batch = min(self.batch_size, images // self.workers * self.workers)
        return self.epochs * (images // batch)

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the result: checkpoints change nothing, nor does the loss where its weight is 0."""
        without = {"checkpoint_steps"} | (set() if self.weight else {"loss", "temperature"})
        return {name: value for name, value in asdict(self).items() if name not in without}


def training_on_labels(train: TrainConfig) -> AlignConfig:
    """Training from random weights as an alignment without a witness: cross-entropy on the labels alone."""
    return AlignConfig(
        weight=0.0,
        label_weight=1.0,
        epochs=train.epochs,
        batch_size=train.batch_size,
        optimizer=OptimizerConfig(name="adamw", lr=train.lr, weight_decay=train.weight_decay),
        clip_grad_norm=1.0,
        augment=AugmentConfig(crop=train.crop, flip=train.flip),
    )
