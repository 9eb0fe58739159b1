"""What a network sees before it decides: the features that its last layer takes, and its last feature map.

Both are found by one pass on a few images, and kept at every later pass, so that a network needs no code of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.models import Classifier, logits_of

_LAST_LAYERS = (nn.Linear, nn.Conv2d)


@dataclass
class Taps:
    """Keeps what a network's last layer takes, and what that layer makes of each place of the last feature map.

    Args:
        network: whose layers are watched.
        last_layer: name of the layer that returns the logits.
        map_layer: name of the layer that returns the feature map; None where places are not wanted.

    Attributes:
        features_BD: the features of the last pass.
        places_BKHW: the logits at each place, of the last pass; None where they are not wanted.
    """

    network: nn.Module
    last_layer: str
    map_layer: str | None = None
    features_BD: Tensor | None = field(default=None, init=False)
    places_BKHW: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.network.get_submodule(self.last_layer).register_forward_pre_hook(self._keep_features)
        if self.map_layer is not None:
            self.network.get_submodule(self.map_layer).register_forward_hook(self._keep_places)

    def _keep_features(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.features_BD = arguments[0].flatten(1).float()

    def _keep_places(self, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        last: Any = self.network.get_submodule(self.last_layer)
        self.places_BKHW = logits_at_places(as_map(output), last.weight, last.bias)


def logits_at_places(map_BDHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a last layer makes of each place of a feature map by itself: logits [B, K, H, W]."""
    return F.conv2d(map_BDHW, weight.float().flatten(1)[:, :, None, None], None if bias is None else bias.float())


def find_last_layer(network: nn.Module, images_BCHW: Tensor) -> str:
    """The name of the layer whose output is the logits: a linear layer, or a convolution over one pixel.

    Raises InputError where there is none, as in networks that change their last layer's output.
    """
    found = ""
    with torch.no_grad(), _watched(network) as outputs:
        logits_BK = _logits(network, images_BCHW)
        for name, layer, output in outputs:
            if isinstance(layer, _LAST_LAYERS) and isinstance(output, Tensor) and _is(output, logits_BK):
                found = name
    if not found:
        raise InputError(
            "its features cannot be found, because no linear layer or convolution returns its logits unchanged; choose "
            "a loss that compares logits"
        )
    return found


def find_map_layer(network: nn.Module, images_BCHW: Tensor) -> str:
    """The name of the layer that returns the last feature map: of a convolutional network or of a transformer.

    It is the last whose values at each place are as many as the last layer takes, so that this predicts at each place.
    Raises InputError where no layer returns more than one place per image.
    """
    last: Any = network.get_submodule(find_last_layer(network, images_BCHW))
    width = last.weight.shape[1]
    found = ""
    with torch.no_grad(), _watched(network) as outputs:
        _logits(network, images_BCHW)
        for name, _, output in outputs:
            if isinstance(output, Tensor) and len(output) == len(images_BCHW) and _is_map(output, width):
                found = name
    if not found:
        raise InputError(
            f"it cannot predict at places of the image: no layer returns {width} values at several places, which its "
            "last layer takes"
        )
    return found


def as_map(output: Tensor) -> Tensor:
    """A feature map [B, D, H, W] or [B, H, W, D] of square images, or tokens [B, N, D], as [B, D, H, W] in float32.

    Of tokens, those that stand for no place of the image, such as the class token, come first, and are left out: as
    many are kept as the largest square number.
    """
    if output.dim() == 4:
        is_channels_last = output.shape[1] == output.shape[2] != output.shape[3]  # as in timm's Swin transformers
        return (output.permute(0, 3, 1, 2) if is_channels_last else output).float()
    side = int(output.shape[1] ** 0.5)
    places_BDN = output[:, output.shape[1] - side**2 :].transpose(1, 2)
    return places_BDN.reshape(*places_BDN.shape[:2], side, side).float()


def _is_map(output: Tensor, width: int) -> bool:
    if output.dim() not in (3, 4) or output[0].numel() <= width:
        return False
    found = as_map(output)
    return found.shape[1] == width and found.shape[2] > 1


def _logits(network: nn.Module, images_BCHW: Tensor) -> Tensor:
    return logits_of(network.output(images_BCHW) if isinstance(network, Classifier) else network(images_BCHW))


def _is(output: Tensor, logits_BK: Tensor) -> bool:
    flat = output.flatten(1)
    return flat.shape == logits_BK.shape and torch.equal(flat, logits_BK)


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[tuple[str, nn.Module, Any]]]:
    """Gathers (name, layer, output) of every layer without parts of its own, and of every block, in their order."""
    outputs: list[tuple[str, nn.Module, Any]] = []
    handles = [
        layer.register_forward_hook(lambda layer, _, output, name=name: outputs.append((name, layer, output)))
        for name, layer in network.named_modules()
        if name
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
