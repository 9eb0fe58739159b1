"""Models: from a name in the experiment to a Classifier, which takes pixels in [0, 1] and returns logits.

Resizing to the model's own size and normalisation are inside: mean and std never leave the model.
"""

import importlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError, reason_of
from align_core.model_config import ModelConfig, Precision, resolve_aligned
from align_core.weights import State, load_into, read_weights


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
            raise InputError(
                f"torchvision: the weights {config.weights} of {name} cannot be had here ({reason_of(problem)})"
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
