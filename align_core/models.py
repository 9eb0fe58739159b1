"""Models: from a name in the experiment to a Classifier, which takes pixels in [0, 1] and returns logits.

Resizing to the model's own size and normalisation are inside: mean and std never leave the model.
"""

import importlib
import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.weights import State, load_into, read_weights

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model without weights is trained on the labels of the training images: AdamW, cosine schedule."""

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

    epochs: int = 10
    lr: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 0.01
    crop: Literal["none", "pad4", "random_resized"] = "none"
    flip: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise ValueError("`train` needs epochs and batch_size of at least 1, lr above 0, weight_decay of 0 or more")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model: an architecture, its weights, and how it wants its pixels.

    Args:
        timm, torchvision: a name of that library. factory: `module:callable`, the user's own code, called with `args`
            (and trusted as code is). aligned: a folder that Witness wrote (model.safetensors, card.json). mlflow:
            such a model in MLflow's registry, `models:/NAME/VERSION`.
        args: keyword arguments for the constructor.
        weights: a file, `pretrained` (timm), or a member of torchvision's weights enumeration.
        train: trained here instead.
        mean, std: per channel; from the library's own configuration unless given (a factory's: no normalisation).
        input_size: side in pixels to resize to inside; the library's unless given (a factory's: no resizing).
        family: what counts as the same family of architectures; the model's name unless given.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

    timm: str | None = None
    torchvision: str | None = None
    factory: str | None = None
    aligned: str | None = None
    mlflow: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    train: TrainConfig | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        kinds = ("timm", "torchvision", "factory", "aligned", "mlflow")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(kinds)} is needed, not {' and '.join(given) or 'none'}")
        is_aligned = self.aligned is not None or self.mlflow is not None
        if not is_aligned and (self.weights is None) == (self.train is None):
            raise ValueError("either `weights` or `train` is needed, and not both")
        if self.mlflow is not None and not re.fullmatch(r"models:/[^/@]+/\d+", self.mlflow):
            raise ValueError(f"mlflow is written models:/NAME/VERSION, the version a number, not {self.mlflow!r}")
        if is_aligned and (self.weights or self.train or self.args):
            raise ValueError("an aligned model has its own weights and arguments: weights, train and args do not apply")
        if self.factory is not None and self.factory.count(":") != 1:
            raise ValueError(f"a factory is written module:callable, not {self.factory!r}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together, or not at all")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0")
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"input_size must be at least 1, not {self.input_size}")

    @property
    def architecture(self) -> str:
        """What makes two models the same architecture: name or factory, and arguments."""
        kinds = [self.timm, self.torchvision, self.factory, self.aligned]
        return json.dumps([*kinds, *([self.mlflow] if self.mlflow else []), self.args], sort_keys=True)

    @property
    def weights_file(self) -> Path | None:
        """The file of weights, where there is one."""
        if self.aligned is not None:
            return Path(self.aligned) / "model.safetensors"
        if self.weights is None or (self.timm and self.weights == "pretrained"):
            return None
        if self.torchvision and self.weights.isidentifier():
            return None
        return Path(self.weights)


def resolve_aligned(config: ModelConfig) -> ModelConfig:
    """An aligned model's configuration as a plain one, from the card beside its weights. Raises InputError."""
    if config.aligned is None:
        return config
    card = Path(config.aligned) / "card.json"
    content = card.read_bytes() if card.is_file() else b""
    return config_of_card(config, content, str(card), str(config.weights_file))


def config_of_card(config: ModelConfig, card: bytes, origin: str, weights: str) -> ModelConfig:
    """An aligned model's configuration as a plain one with `weights`: what `config` does not give is its card's.

    Raises InputError, naming `origin`, for what is no such card.
    """
    try:
        plain = model_config_from(json.loads(card)["model"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(f"{origin}: not the card of an aligned model that Witness wrote ({problem!r})") from problem
    own = {name: getattr(config, name) for name in ("mean", "std", "input_size", "family")}
    changes = {name: value for name, value in own.items() if value is not None}
    return replace(resolve_aligned(plain), weights=weights, train=None, **changes)


def model_config_from(stored: dict[str, Any]) -> ModelConfig:
    """A ModelConfig from what `dataclasses.asdict` made of it, through JSON."""
    known = {entry.name for entry in fields(ModelConfig)}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    if isinstance(values.get("train"), dict):
        values["train"] = TrainConfig(**values["train"])
    return ModelConfig(**{name: value for name, value in values.items() if name in known})


def model_config_as_dict(config: ModelConfig) -> dict[str, Any]:
    """The settings that are not None, for a card."""
    return {name: value for name, value in asdict(config).items() if value not in (None, {})}


class Classifier(nn.Module):
    """A network behind pixels: float [B, C, H, W] in [0, 1] in, logits [B, K] out.

    Args:
        net: takes normalised images at `input_size`.
        mean, std: per channel.
        input_size: side in pixels to resize to, antialiased bicubic; None leaves the images at their size.

    Its `precision`, `fp32` unless set to `bf16`, runs the network under autocast; logits are float32 either way.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(
        self, net: nn.Module, mean: Sequence[float], std: Sequence[float], input_size: int | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.input_size = input_size
        self.precision: Precision = "fp32"
        self.register_buffer("mean_C11", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] in float32 for pixels [B, C, H, W] in [0, 1]."""
        size = self.input_size
        if size is not None and images_BCHW.shape[-2:] != (size, size):
            images_BCHW = F.interpolate(images_BCHW, (size, size), mode="bicubic", antialias=True, align_corners=False)
        normalised_BCHW = (images_BCHW - self.mean_C11) / self.std_C11
        bf16 = torch.autocast(images_BCHW.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with bf16:
            logits_BK: Tensor = self.net(normalised_BCHW)
        return logits_BK.float()


class Ensemble(nn.Module):
    """Mean of the members' logits: one surrogate made of several models."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] for pixels [B, C, H, W] in [0, 1]."""
        return torch.stack([member(images_BCHW) for member in self.members]).mean(dim=0)


def build(config: ModelConfig, classes: int, channels: int) -> Classifier:
    """The model with random weights, or with `pretrained` ones where the configuration says so.

    Raises InputError for an unknown name, arguments that the constructor refuses, or a factory that cannot be found.
    """
    config = resolve_aligned(config)
    if config.timm is not None:
        return _from_timm(config, classes, channels)
    if config.torchvision is not None:
        return _from_torchvision(config, classes, channels)
    net = _call_factory(str(config.factory), config.args)
    return _classifier(net, config, (0.0,) * channels, (1.0,) * channels, None)


def load(config: ModelConfig, classes: int, channels: int, weights: Path | State | None = None) -> Classifier:
    """The model with its weights, in eval mode, its parameters frozen.

    Args:
        weights: stands for the configuration's own: a file, or the tensors (a model that was trained or aligned here).

    Raises InputError where a file cannot be read or does not fit.
    """
    config = resolve_aligned(config)
    classifier = build(config, classes, channels)
    source = weights if weights is not None else config.weights_file
    if isinstance(source, Path):
        load_into(classifier.net, read_weights(source), str(source))
    elif source is not None:
        load_into(classifier.net, source, "the weights given")
    return classifier.eval().requires_grad_(False)


def check_output(classifier: Classifier, name: str, shape: tuple[int, int, int], classes: int) -> None:
    """One black image of `shape` (C, H, W) goes through: raises InputError unless `classes` logits come out."""
    channels = classifier.mean_C11.shape[0]
    if channels != shape[0]:
        raise InputError(f"models.{name}: mean and std are for {channels} channels, the images have {shape[0]}")
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.no_grad():
            logits = classifier(torch.zeros(1, *shape))
    except Exception as problem:
        raise InputError(f"models.{name}: cannot take images of {shape} (C, H, W): {problem}") from problem
    finally:
        classifier.train(was_training)
    if logits.shape != (1, classes):
        raise InputError(
            f"models.{name}: returns {tuple(logits.shape)} for one image, not (1, {classes}): does data.classes "
            f"({classes}) fit this model?"
        )


def _from_timm(config: ModelConfig, classes: int, channels: int) -> Classifier:
    import timm
    from timm.data import resolve_data_config

    pretrained = config.weights == "pretrained"
    arguments = {"in_chans": channels, **({} if pretrained else {"num_classes": classes}), **config.args}
    try:
        net = timm.create_model(str(config.timm), pretrained=pretrained, **arguments)
        data = resolve_data_config({"img_size": config.args.get("img_size")}, model=net)
    except (RuntimeError, TypeError, ValueError, AssertionError) as problem:
        raise InputError(f"timm: {config.timm}: {problem}") from problem
    except OSError as problem:
        raise InputError(f"timm: {config.timm}: the pretrained weights cannot be had here ({problem})") from problem
    mean, std = data["mean"], data["std"]
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return _classifier(net, config, mean, std, data["input_size"][-1])


def _from_torchvision(config: ModelConfig, classes: int, channels: int) -> Classifier:
    import torchvision

    name = str(config.torchvision)
    if name not in torchvision.models.list_models(torchvision.models):
        raise InputError(f"torchvision: there is no image classifier {name!r}")
    members = torchvision.models.get_model_weights(name)
    weights = None
    if config.weights is not None and config.weights_file is None:
        if config.weights not in members.__members__:
            known = ", ".join(members.__members__)
            raise InputError(f"torchvision: {name} has no weights {config.weights!r}; it has {known}")
        weights = members[config.weights]
        try:
            # The constructor unpickles whatever lies in torch's cache: it may, once this has read tensors alone there.
            weights.get_state_dict(check_hash=True, weights_only=True)
        except Exception as problem:  # no network, another hash, a damaged file
            reason = str(problem).partition("\n")[0]
            raise InputError(
                f"torchvision: the weights {config.weights} of {name} cannot be had here ({reason})"
            ) from problem
    arguments = config.args if weights else {"num_classes": classes, **config.args}
    try:
        net = torchvision.models.get_model(name, weights=weights, **arguments)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise InputError(f"torchvision: {name}: {problem}") from problem
    transforms = (weights or members.DEFAULT).transforms()
    return _classifier(net, config, tuple(transforms.mean), tuple(transforms.std), transforms.crop_size[0])


def _call_factory(path: str, arguments: dict[str, Any]) -> nn.Module:
    module_name, _, name = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as problem:
        raise InputError(
            f"factory {path}: {problem}. The module is looked for beside the experiment file, then on PYTHONPATH"
        ) from problem
    except Exception as problem:  # the user's own code, here and below, raises whatever it likes
        raise InputError(f"factory {path}: importing it raises {problem!r}") from problem
    try:
        net = factory(**arguments)
    except Exception as problem:
        raise InputError(f"factory {path}: raises {problem!r}") from problem
    if not isinstance(net, nn.Module):
        raise InputError(f"factory {path}: returned a {type(net).__name__}, not a torch.nn.Module")
    return net


def _classifier(
    net: nn.Module, config: ModelConfig, mean: Sequence[float], std: Sequence[float], input_size: int | None
) -> Classifier:
    """The library's preprocessing, unless the configuration gives its own."""
    return Classifier(net, config.mean or mean, config.std or std, config.input_size or input_size)
