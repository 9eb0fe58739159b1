"""Where a training begins that starts from weights: the body is loaded, and the classifier is new where it must be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from align_core.errors import InputError
from align_core.features import find_last_layer
from align_core.model_config import ModelConfig
from align_core.models import Classifier, build, predicting
from align_core.weights import State, hash_weights, load_into, read_weights

_AUXILIARY = ("AuxLogits.fc", "aux1.fc2", "aux2.fc2")  # further classifiers of torchvision's Inception and GoogLeNet


def begin(config: ModelConfig, classes: int, channels: int, size: int) -> tuple[Classifier, str | None]:
    """The network that a training begins with, and the hash of the weights that it starts from; None for random ones.

    Every tensor of the weights is loaded. Where they are for another number of classes, the classifier's are left out:
    it is new, with weights that are drawn from torch's global random numbers. timm says which layers it is made of; in
    other networks it is the layer that returns the logits.

    Args:
        config: a model with `train`, and perhaps with `weights`.
        classes: number of classes K.
        channels, size: of the images.

    Raises InputError where the model cannot be built, or the weights cannot be read or do not fit.
    """
    classifier = build(config, classes, channels)
    if config.weights is None:
        return classifier, None
    path = config.weights_file
    state = read_weights(path) if path is not None else _published(config, classes, channels)
    load_into(classifier.net, _fitted(classifier, state, classes, channels, size), str(path or config.weights))
    return classifier, hash_weights(state)


def _published(config: ModelConfig, classes: int, channels: int) -> State:
    """The weights that a library supplies, as its own network has them."""
    return dict(build(replace(config, train=None), classes, channels).net.state_dict())


def _fitted(classifier: Classifier, state: State, classes: int, channels: int, size: int) -> State:
    """The weights with a new classifier, where theirs is for other classes: of other tensors, all shapes must fit."""
    own = classifier.net.state_dict()
    unlike = {name for name, value in state.items() if name in own and own[name].shape != value.shape}
    if not any(_is_for_others(own[name], state[name], classes) for name in unlike):
        return state
    heads = tuple(f"{name}." for name in _heads(classifier, channels, size))
    if any(name.startswith(heads) and not _is_for_others(own[name], state[name], classes) for name in unlike):
        return state
    kept = {name: value for name, value in state.items() if not name.startswith(heads)}
    new = {name: value for name, value in own.items() if name.startswith(heads)}
    left_out = next((value for name, value in state.items() if name.startswith(heads)), None)
    if left_out is not None:
        change = f"its weights are for {left_out.shape[0]} classes, and its classifier is new, for {classes}"
        classifier.changes += (change,)
    return kept | new


def _is_for_others(own: Tensor, given: Tensor, classes: int) -> bool:
    """Whether a tensor differs from the network's as that of a classifier for another number of classes does."""
    if own.dim() == 0 or own.dim() != given.dim():
        return False
    return own.shape[0] == classes != given.shape[0] and own.shape[1:] == given.shape[1:]


def _heads(classifier: Classifier, channels: int, size: int) -> Sequence[str]:
    """The names of the layers that are the classifier. Raises InputError where they cannot be found."""
    net: Any = classifier.net
    named = getattr(net, "pretrained_cfg", {}).get("classifier") if isinstance(net, nn.Module) else None
    if named:
        return [named] if isinstance(named, str) else list(named)
    device = next(net.parameters()).device
    try:
        with predicting(classifier):
            last = find_last_layer(classifier, torch.full((1, channels, size, size), 0.5, device=device))
    except InputError as problem:
        raise InputError(
            "the weights are for another number of classes, and its classifier, which is to be new, cannot be found: "
            "no linear layer or convolution returns its logits unchanged"
        ) from problem
    there = {name for name, _ in net.named_modules()}
    return [last.removeprefix("net."), *(name for name in _AUXILIARY if name in there)]
