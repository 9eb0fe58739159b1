"""The settings of an alignment, and which of them decide its result.

Nothing here imports torch, so that commands which only read settings start fast.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from align_core.early_stop_config import EarlyStopConfig
from align_core.errors import InputError
from align_core.losses import LOSSES, read_losses
from align_core.model_config import TrainConfig, check_length, too_long
from align_core.refinements.parts import NEED_TEACHER, networks_are_several, read_part, read_terms
from align_core.settings import Settings

_MOST_WORKERS = 10_000
_MOST_STEPS = 10**9
_OVER_WITNESSES = ("mean", "max", "min")
_OF_ALIGNMENT = ("loss", "temperature", "over_witnesses", "teacher")


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

    Raises ValueError for values out of range.

    Args:
        lr: the highest learning rate.
        schedule: `cosine` falls from `lr` to 0, step by step; `constant` stays at `lr`.
        warmup: epochs in which the learning rate first rises to `lr` in equal steps; a part of one counts, too.
        layer_decay: factor by which the learning rate of a layer is smaller than that of the next, from the last layer
            to the first (timm's layer groups; its paper is Clark et al. 2020, 2003.10555); 1 trains all alike.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ValueError("lr must be above 0, weight_decay 0 or more, momentum at least 0 and below 1")
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        if self.warmup < 0:
            raise ValueError(f"warmup must be 0 epochs or more, not {self.warmup:g}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and not above 1, not {self.layer_decay:g}")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(Settings):
    """How a surrogate is made from a source: by alignment to witnesses, or by another refinement.

    The defaults are those of the code that Ma et al. (2024) released, for convolutional networks. Parts are written as
    names, or as keys and values with a name (see `align_core.losses.known` and `align_core.refinements.parts`). Raises
    ValueError for values out of range, and for settings that contradict each other.

    Args:
        loss: how the source is compared with a witness: a loss in `losses.LOSSES`, or a list of several.
        temperature: divides the logits of source and witness before the softmax.
        weight: factor of the alignment loss in the total loss.
        label_weight: factor of the cross-entropy on the labels in the total loss.
        label_smoothing: share of each label that is spread evenly over all classes.
        teacher: whom the source is aligned to: its `witnesses`, or the `source` as it was at the start.
        over_witnesses: how the losses to several witnesses become one: `mean`; `max` or `min`, image by image; or a
            list with the weight of each.
        inputs: what is done to training images beside their augmentation; `clean` is nothing.
        mix: how training images are mixed with each other; `none` leaves them alone.
        terms: further terms of the loss.
        update: which gradient the optimiser takes; `plain` is that at the weights themselves.
        keep: what is kept of the weights; `last` is those after the last step.
        epochs: passes over the training images.
        limit_steps: number of updates, where it is not that of whole epochs; the schedule ends with the last of them.
        batch_size: images per step, over all data-parallel workers together.
        accumulate: parts in which a worker's images of a step go through the networks one after another, where memory
            does not hold all of them. Their gradients are added. BatchNorm and losses that compare images with each
            other see one part at a time, so that it changes the aligned weights.
        workers: data-parallel workers. Floating-point sums depend on their number, and so do the aligned weights.
        optimizer: the optimiser, its learning rate and its other hyperparameters.
        clip_grad_norm: largest L2 norm of the gradient; None sets no limit.
        freeze: names of parameters that stay as they are, with `*` for any text: `layer1.*`.
        batchnorm: `update` trains BatchNorm layers like all others. `frozen` keeps their statistics, scale and shift.
            It is meant for sources whose BatchNorm was folded into the convolutions: the accuracy of such a source
            falls to chance at once if the layers that remain are updated.
        augment: augmentation of the training images.
        checkpoint_steps: steps between checkpoints within an epoch. Every epoch ends with one, too.
        early_stop: by what its end and its weights are chosen on validation images; None takes all steps.
    """

    loss: str | list[Any] | dict[str, Any] = "kl"
    temperature: float = 4.0
    weight: float = 1.0
    label_weight: float = 0.0
    label_smoothing: float = 0.0
    teacher: Literal["witnesses", "source"] = "witnesses"
    over_witnesses: str | list[float] = "mean"
    inputs: str | dict[str, Any] = "clean"
    mix: str | dict[str, Any] = "none"
    terms: list[Any] = field(default_factory=list)
    update: str | dict[str, Any] = "plain"
    keep: str | dict[str, Any] = "last"
    epochs: int = 1
    limit_steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    workers: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    clip_grad_norm: float | None = None
    freeze: list[str] = field(default_factory=list)
    batchnorm: Literal["update", "frozen"] = "update"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    checkpoint_steps: int = 200
    early_stop: EarlyStopConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read_parts()
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.weight < 0 or self.label_weight < 0 or self.weight + self.label_weight == 0:
            raise ValueError("weight and label_weight must be 0 or more, and not both 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be 0 or more and below 1, not {self.label_smoothing:g}")
        if min(self.epochs, self.batch_size, self.accumulate, self.workers, self.checkpoint_steps) < 1:
            raise ValueError("epochs, batch_size, accumulate, workers and checkpoint_steps must be at least 1")
        check_length(self.epochs, self.batch_size)
        if self.limit_steps is not None and not 1 <= self.limit_steps <= _MOST_STEPS:
            raise ValueError(f"limit_steps must be from 1 to {_MOST_STEPS:,}, not {self.limit_steps}")
        if self.workers > _MOST_WORKERS:
            raise ValueError(f"workers must be at most {_MOST_WORKERS:,}, and is {self.workers:,}")
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of workers {self.workers}")
        if self.accumulate > self.batch_size // self.workers:
            rows = self.batch_size // self.workers
            raise ValueError(f"accumulate {self.accumulate} is more than the {rows} images of a step that a worker has")
        if self.clip_grad_norm is not None and self.clip_grad_norm <= 0:
            raise ValueError("clip_grad_norm must be above 0, or null")
        self._check_over_witnesses()
        self._check_together()

    def _read_parts(self) -> None:
        """Completes the settings of parts. A loss alone, with nothing but its name, stays the text that it was."""
        losses = read_losses(self.loss)
        plain = losses == read_losses(losses[0]["name"])
        own: dict[str, Any] = {"loss": losses[0]["name"] if plain else losses, "terms": read_terms(self.terms)}
        own |= {kind: read_part(kind, getattr(self, kind)) for kind in ("inputs", "mix", "update", "keep")}
        for name, value in own.items():
            object.__setattr__(self, name, value)  # a frozen dataclass permits no plain assignment, even here

    def _check_over_witnesses(self) -> None:
        if isinstance(self.over_witnesses, str):
            if self.over_witnesses not in _OVER_WITNESSES:
                wanted = f"one of {', '.join(_OVER_WITNESSES)}, or a list of weights"
                raise ValueError(f"over_witnesses must be {wanted}, not {self.over_witnesses!r}")
        elif not all(map(_is_weight, self.over_witnesses)) or not any(self.over_witnesses):
            raise ValueError("over_witnesses: weights must be finite numbers of 0 or more, and not all 0")
        whole = [own["name"] for own in self.losses if not LOSSES[own["name"]].per_image]
        if self.over_witnesses in ("max", "min") and whole:
            raise ValueError(
                f"over_witnesses: {self.over_witnesses} chooses image by image, and {whole[0]} has one value for a "
                "batch; take the mean"
            )

    def _check_together(self) -> None:
        """Refuses parts that would be without effect beside each other, or contradict each other."""
        by_labels = [own["name"] for own in self.losses if own["name"] == "nce"]
        if self.weight and self.mix != "none" and by_labels:
            raise ValueError("mix: nce compares images by their labels, of which a mixed image has two; leave one out")
        if not self.weight and any(own["name"] in NEED_TEACHER for own in self.terms):
            raise ValueError(
                "terms: self_adversarial aligns the source to its teacher, and weight is 0; leave it out (a variant: "
                "`terms: []`)"
            )
        if not self.label_weight and self.label_smoothing:
            raise ValueError("label_smoothing has no effect, because label_weight is 0")
        if not self.limit_steps and self.optimizer.warmup >= self.epochs:
            raise ValueError(f"optimizer.warmup: {too_long(self.optimizer.warmup, self.epochs)}")
        if self.early_stop is not None and networks_are_several(self.keep):
            raise ValueError(
                "early_stop: it keeps one network, and `keep` leaves several; leave it out (early_stop: null), or keep "
                "one network"
            )
        if self.early_stop is not None and self.early_stop.by == "agreement" and not self.needs_witnesses:
            raise ValueError(
                "early_stop: it is by agreement with the witnesses, and without them there is none; leave it out "
                "(early_stop: null), or stop by gain"
            )

    @property
    def losses(self) -> list[dict[str, Any]]:
        """The alignment losses with all their settings."""
        return read_losses(self.loss)

    @property
    def needs_witnesses(self) -> bool:
        """Whether it cannot be done without a witness."""
        return self.weight > 0 and self.teacher == "witnesses"

    @property
    def idle(self) -> dict[str, str]:
        """The settings that have no effect beside others, and why, with what to do."""
        steps = {"epochs": "`limit_steps` decides how long it is trained; leave it out, or set limit_steps: null"}
        aligned = "nothing is aligned where `weight` is 0; leave it out, or give `weight` too"
        return (steps if self.limit_steps else {}) | ({} if self.weight else dict.fromkeys(_OF_ALIGNMENT, aligned))

    def check_images(self, images: int) -> None:
        """Raises InputError where a training set of so many images does not suit.

        There, `limit_steps` end before the warm-up does, or too few images go through the networks at once for a loss
        that compares them with each other, which would be 0 at every step.
        """
        rows = training_of(self, images).rows
        for name in (own["name"] for own in self.losses if self.weight and own["weight"]):
            if rows < (least := LOSSES[name].least):
                raise InputError(
                    f"batch_size: {name} compares {least} or more images with each other, and {rows} of a step's "
                    "images go through the networks at once; raise it, or lower accumulate or workers"
                )
        epochs = self.steps(images) / self.steps_per_epoch(images)
        if self.limit_steps and self.optimizer.warmup >= epochs:
            raise InputError(f"optimizer.warmup: {too_long(self.optimizer.warmup, epochs)}")

    def steps(self, images: int) -> int:
        """Number of updates over a training set of `images` images.

        Raises InputError where there are fewer images than workers.
        """
        return self.limit_steps or self.epochs * self.steps_per_epoch(images)

    def steps_per_epoch(self, images: int) -> int:
        """Number of updates in an epoch: it drops the images that fill no batch. Raises InputError as `steps` does."""
        if images < self.workers:
            raise InputError(f"{images} training images are too few for {self.workers} workers")
        return images // min(self.batch_size, images // self.workers * self.workers)

    @property
    def effective(self) -> dict[str, Any]:
        """The settings that decide the aligned weights.

        Checkpoints change no weight, and the loss and its temperature have no effect where `weight` is 0: changing them
        must not cause a model to be made again.
        """
        without = {"checkpoint_steps", *self.idle} | (set() if self.limit_steps else {"limit_steps"})
        without |= {"early_stop"} if self.early_stop is None else set()
        return {name: value for name, value in asdict(self).items() if name not in without}

    @property
    def deciding(self) -> dict[str, Any]:
        """Those of the effective settings that are not at their defaults: fingerprints are computed from them.

        A setting that is added later then changes no fingerprint. A default that changes needs a new revision.
        """
        return _unlike(self.effective, asdict(AlignConfig()))


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf


def align_config_of(settings: Mapping[str, Any]) -> AlignConfig:
    """An alignment from plain settings, in which the optimiser and the augmentation may be mappings, as in presets.

    Raises ValueError or TypeError for settings that make no alignment.
    """
    kinds: dict[str, Any] = {"optimizer": OptimizerConfig, "augment": AugmentConfig, "early_stop": EarlyStopConfig}
    own = {name: kinds[name](**settings[name]) for name in kinds if isinstance(settings.get(name), Mapping)}
    return AlignConfig(**{**settings, **own})


def _unlike(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the usual ones; of settings within settings, those that do."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and isinstance(usual[name], dict):
            if own := _unlike(value, usual[name]):
                found[name] = own
        elif value != usual[name]:
            found[name] = value
    return found


@dataclass(frozen=True)
class Training:
    """What of an alignment decides whether a network can be trained so: a trial needs no more.

    Attributes:
        optimizer, batchnorm: as in AlignConfig.
        rows: images that go through the networks of one worker at once.
        freeze: as in AlignConfig.
        terms: names of the further terms of the loss, of which some need second derivatives.
        key: under which these settings stand in an experiment file.
    """

    optimizer: Literal["sgd", "adamw"]
    batchnorm: Literal["update", "frozen"]
    rows: int
    freeze: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    key: Literal["align", "train"] = "align"


def training_of(align: AlignConfig, images: int) -> Training:
    """What a trial needs to know of an alignment on a training set of `images` images."""
    rows = min(align.batch_size, images) // align.workers // align.accumulate
    terms = tuple(own["name"] for own in align.terms)
    return Training(align.optimizer.name, align.batchnorm, max(1, rows), tuple(align.freeze), terms)


def training_on_labels(train: TrainConfig) -> AlignConfig:
    """The settings that train a model with cross-entropy on the labels and no witness.

    Such training runs through the same code as an alignment, whose `weight` is 0 here and `label_weight` 1.
    """
    return AlignConfig(
        weight=0.0,
        label_weight=1.0,
        epochs=train.epochs,
        batch_size=train.batch_size,
        optimizer=OptimizerConfig(
            name="adamw",
            lr=train.lr,
            weight_decay=train.weight_decay,
            warmup=train.warmup,
            layer_decay=train.layer_decay,
        ),
        freeze=train.freeze,
        batchnorm=train.batchnorm,
        clip_grad_norm=1.0,
        augment=AugmentConfig(crop=train.crop, flip=train.flip),
    )
