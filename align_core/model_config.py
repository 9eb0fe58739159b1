"""The settings of a model: its architecture, its weights and its preprocessing.

Nothing here imports torch, so that commands which only read settings start fast.
"""

import glob
import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from align_core.defences.known import read_wrap
from align_core.errors import InputError
from align_core.settings import Settings

Precision = Literal["fp32", "tf32", "bf16"]
Combine = Literal["logits", "loss", "cycle"]
"""What an attack on several networks goes by: the mean of logits, or of losses, or one network after the other."""

_MOST_EPOCHS = 100_000
_LARGEST_BATCH = 1_000_000
_LARGEST_SIDE = 4096
_NOT_STRUCTURE = frozenset({
    "num_classes", "in_chans", "img_size", "image_size", "input_size", "transform_input", "aux_logits", "init_weights",
    "pretrained_cfg", "pretrained_cfg_overlay",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How a model is trained on the labels of the training images, from random weights or from those that it names.

    The optimiser is AdamW; the learning rate falls from `lr` to 0 along a cosine. `crop` and `flip` mean the same as in
    `AugmentConfig`, `warmup` and `layer_decay` as in `OptimizerConfig`, `freeze` and `batchnorm` as in `AlignConfig`;
    these four are for fine-tunes of weights that are there. Raises ValueError for values out of range.
    """

    epochs: int = 10
    lr: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 0.01
    crop: Literal["none", "pad4", "random_resized"] = "none"
    flip: bool = False
    warmup: float = 0.0
    layer_decay: float = 1.0
    freeze: list[str] = field(default_factory=list)
    batchnorm: Literal["update", "frozen"] = "update"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < 0 or not 0 < self.layer_decay <= 1:
            raise ValueError("`train` needs a warmup of 0 epochs or more, and a layer_decay above 0 and not above 1")
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise ValueError("`train` needs epochs and batch_size of at least 1, lr above 0, weight_decay of 0 or more")
        check_length(self.epochs, self.batch_size)
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: {too_long(self.warmup, self.epochs)}")

    @property
    def keeps(self) -> dict[str, bool]:
        """By its name, whether a setting keeps weights as they are, or near to that."""
        return {
            "freeze": bool(self.freeze), "batchnorm: frozen": self.batchnorm == "frozen",
            "layer_decay": self.layer_decay < 1,
        }  # fmt: skip


def check_length(epochs: int, batch_size: int) -> None:
    """Raises ValueError for a training that could only be a mistake, as it would not end or fit no memory."""
    if epochs > _MOST_EPOCHS:
        raise ValueError(f"epochs must be at most {_MOST_EPOCHS:,}, and is {epochs:,}: no training would end")
    if batch_size > _LARGEST_BATCH:
        raise ValueError(f"batch_size must be at most {_LARGEST_BATCH:,}, and is {batch_size:,}: no memory holds it")


def too_long(warmup: float, epochs: float) -> str:
    """What is wrong with a warm-up that is not shorter than the training; both are in epochs."""
    return (
        f"{warmup:g} epoch{'s' * (warmup != 1)} of warm-up, of {epochs:.4g} in all, leave the learning rate to rise "
        "alone; make the warm-up shorter than the training"
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """One model: its architecture, its weights and its preprocessing.

    Exactly one of `timm`, `torchvision`, `factory`, `aligned`, `mlflow` and `wrap` is given. Raises ValueError for
    settings that contradict each other.

    Args:
        timm: a model name of timm.
        torchvision: a name of torchvision's image classifiers.
        factory: `module:callable`, which returns the network. It is the user's own code and is run as such.
        aligned: a folder that Witness wrote, with model.safetensors and card.json.
        mlflow: such a model in MLflow's registry, `models:/NAME/VERSION`.
        wrap: a defence in `align_core.defences`, which is put around another model, `model`.
        model: the name of the model that is defended.
        args: keyword arguments for the constructor or the factory, or the settings of the defence.
        weights: a file, `pretrained` (timm), a member of torchvision's weights enumeration, or `none`, where what a
            factory returns has its weights already.
        train: how the model is trained by Witness: from random weights or, where `weights` are given, from these, with
            a new classifier where they are for another number of classes.
        mean, std: per-channel normalisation of the input. By default it is the one that the library configures; a model
            from a factory has none.
        input_size: side in pixels to which the input is resized. By default it is the one that the library configures;
            a model from a factory takes images at their size.
        family: models with equal `family` count as the same family of architectures. By default it is the model's name.
    """

    timm: str | None = None
    torchvision: str | None = None
    factory: str | None = None
    aligned: str | None = None
    mlflow: str | None = None
    wrap: str | None = None
    model: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    train: TrainConfig | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = ("timm", "torchvision", "factory", "aligned", "mlflow", "wrap")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(kinds)} must be given, not {' and '.join(given) or 'none'}")
        if (self.wrap is None) != (self.model is None):
            raise ValueError("a `wrap` is put around the model of the experiment that `model` names: give both")
        if self.wrap is not None:
            return self._check_wrap(self.wrap)
        if self.weights == "none" and self.factory is None:
            raise ValueError("weights: none is for a factory that returns a network with its weights")
        is_aligned = self.aligned is not None or self.mlflow is not None
        if not is_aligned and self.weights is None and self.train is None:
            mend = " (weights: none, if the factory returns a network with its weights)" if self.factory else ""
            raise ValueError(f"either `weights` or `train` is needed, or both{mend}")
        if self.weights == "none" and self.train is not None:
            raise ValueError(
                "a training starts from what the factory returns unless `weights` names a file: leave `weights: none` "
                "out"
            )
        if self.mlflow is not None and not re.fullmatch(r"models:/[^/@]+/\d+", self.mlflow):
            raise ValueError(f"mlflow must be models:/NAME/VERSION, with a number as version, not {self.mlflow!r}")
        if is_aligned and (self.weights or self.train or self.args):
            raise ValueError("an aligned model has its own weights and arguments: weights, train and args do not apply")
        if self.factory is not None and not re.fullmatch(r"[^:]+:[^:]+", self.factory):
            raise ValueError(f"a factory must be written as module:callable, not {self.factory!r}")
        self._check_beginnings()
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together, or not at all")
        self._check_normalisation()
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"input_size must be at least 1, not {self.input_size}")
        if self.input_size is not None and self.input_size > _LARGEST_SIDE:
            raise ValueError(f"input_size must be at most {_LARGEST_SIDE} pixels, not {self.input_size}")
        try:
            json.dumps(self.args, allow_nan=False)
        except (TypeError, ValueError) as problem:
            raise ValueError(f"args must be plain values and finite numbers, as JSON holds them ({problem})") from None

    def _check_beginnings(self) -> None:
        """Nothing is kept of random weights: a factory may have loaded others, but a library has not."""
        if self.train is None or self.weights is not None or self.factory is not None:
            return
        kept = [name for name, is_set in self.train.keeps.items() if is_set]
        if kept:
            raise ValueError(
                f"train: {kept[0]} keeps random weights as they are: name the `weights` that the training starts from"
            )

    def _check_wrap(self, wrap: str) -> None:
        """Completes the settings of the defence. Everything else is that of the model within."""
        own = ("weights", "train", "mean", "std", "input_size", "family")
        given = [name for name in own if getattr(self, name) is not None]
        if given:
            raise ValueError(f"{given[0]} is that of the model within, {self.model!r}: set it there")
        object.__setattr__(self, "args", dict(read_wrap(wrap, self.args).settings))

    def _check_normalisation(self) -> None:
        """Mean and std are of pixels in [0, 1]; the commonest slip is to give them for pixels from 0 to 255."""
        if self.mean is None or self.std is None:
            return
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                f"mean and std must have a value for each channel, 1 or 3, not {len(self.mean)} and {len(self.std)}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if max(values) > 1:
                mend = f": did you mean {max(values) / 255:.4g}?" if max(values) <= 255 else ""
                raise ValueError(f"{name} is of pixels in [0, 1], not 0 to 255, so {max(values):g} is too large{mend}")
        if min(self.mean) < 0:
            raise ValueError(f"mean is of pixels in [0, 1] and is subtracted, so it cannot be {min(self.mean):g}")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")

    @property
    def takes_colour(self) -> bool:
        """Whether the settings say that it takes three channels: so do all of torchvision's, and timm's own weights."""
        if self.mean is not None:
            return len(self.mean) == 3
        is_timms_own = self.timm is not None and self.weights == "pretrained" and ":" not in self.timm
        return self.torchvision is not None or (is_timms_own and self.args.get("in_chans", 3) == 3)

    @property
    def brings_weights(self) -> bool:
        """Whether what the factory returns has its weights already."""
        return self.factory is not None and self.weights == "none"

    @property
    def architecture(self) -> str:
        """Name or factory and arguments, as JSON. Two models with equal strings have the same architecture."""
        kinds = [self.timm, self.torchvision, self.factory, self.aligned]
        return json.dumps([*kinds, *([self.mlflow] if self.mlflow else []), self.args], sort_keys=True)

    @property
    def structure(self) -> str:
        """`architecture` without timm's tag or the hub's revision, or arguments that leave the layers as they are.

        Published weights of one architecture, and copies of them whose card spells such arguments out, have equal
        structures.
        """
        if self.timm is None and self.torchvision is None:
            return self.architecture
        name = self.timm and self.timm.partition("@")[0].partition(".")[0]
        args = {key: value for key, value in self.args.items() if key not in _NOT_STRUCTURE}
        return json.dumps([name, self.torchvision, None, None, args], sort_keys=True)

    @property
    def weights_file(self) -> Path | None:
        """The weights file, or None where the library supplies the weights, or a training starts from random ones."""
        if self.aligned is not None:
            return Path(self.aligned) / "model.safetensors"
        if self.weights is None or (self.timm and self.weights == "pretrained") or self.brings_weights:
            return None
        if self.torchvision and self.weights.isidentifier():
            return None
        return Path(self.weights)


def resolve_aligned(config: ModelConfig) -> ModelConfig:
    """Turns the configuration of an aligned model into one that names its architecture and weights file.

    Reads the card beside the weights. Any other configuration is returned unchanged. Raises InputError where the card
    is missing or damaged.
    """
    if config.aligned is None:
        return config
    card = Path(config.aligned) / "card.json"
    if not card.is_file():
        beside = sorted(card.parent.parent.glob(f"{glob.escape(card.parent.name)}~*"))
        seeds = f"; of several seeds there are {', '.join(own.name for own in beside)}: name one" if beside else ""
        raise InputError(f"{card}: there is no such file{seeds}")
    content = card.read_bytes()
    return config_of_card(config, content, str(card), str(config.weights_file))


def config_of_card(config: ModelConfig, card: bytes, origin: str, weights: str) -> ModelConfig:
    """The configuration that an aligned model's card describes, with `weights` as its weights file.

    Args:
        config: the configuration that refers to the aligned model. Where it gives preprocessing or a family of its own,
            these take precedence over the card's.
        card: content of the card, JSON.
        origin: where the card came from, for the error message.
        weights: path of the weights file.

    Raises InputError, naming `origin`, where the content is not a card that Witness wrote, or that of several networks.
    """
    try:
        content = json.loads(card)
        plain, more = model_config_from(content["model"]), len(content.get("more_weights") or ())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise InputError(f"{origin}: not the card of an aligned model that Witness wrote ({problem!r})") from problem
    if more:
        raise InputError(
            f"{origin}: this surrogate is {more + 1} networks, of which a model would be the first alone; choose one "
            "that is a single network"
        )
    own = {name: getattr(config, name) for name in ("mean", "std", "input_size", "family")}
    changes = {name: value for name, value in own.items() if value is not None}
    return replace(resolve_aligned(plain), weights=weights, train=None, **changes)


def model_config_from(stored: dict[str, Any]) -> ModelConfig:
    """Restores a ModelConfig from its dictionary after a round trip through JSON, which turns tuples into lists.

    Unknown keys are ignored. Raises ValueError or TypeError for settings that make no model.
    """
    known = {entry.name for entry in fields(ModelConfig)}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    if isinstance(values.get("train"), dict):
        values["train"] = TrainConfig(**values["train"])
    return ModelConfig(**{name: value for name, value in values.items() if name in known})


def model_config_as_dict(config: ModelConfig) -> dict[str, Any]:
    """The settings as a dictionary for a card, without those that are None or empty."""
    return {name: value for name, value in asdict(config).items() if value not in (None, {})}
