"""What a network sees before it decides: the features that its last layer takes, and its last feature map.

Both are found by one pass on a few images, and kept at every later pass, so that a network needs no code of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakMethod, finalize

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
        norm_layer: name of the LayerNorm between the feature map and the last layer; None where there is none.

    Attributes:
        features_BD: the features of the last pass.
        places_BKHW: the logits at each place, of the last pass; None where they are not wanted.
    """

    network: nn.Module
    last_layer: str
    map_layer: str | None = None
    norm_layer: str | None = None
    features_BD: Tensor | None = field(default=None, init=False)
    places_BKHW: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        last = self.network.get_submodule(self.last_layer)
        handles = [last.register_forward_pre_hook(_hook(last, WeakMethod(self._keep_features)))]
        if self.map_layer is not None:
            layer = self.network.get_submodule(self.map_layer)
            handles.append(layer.register_forward_hook(_hook(layer, WeakMethod(self._keep_places))))
        for handle in handles:  # a network may outlive many alignments that watch it
            finalize(self, handle.remove)

    def _keep_features(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.features_BD = arguments[0].flatten(1).float()

    def _keep_places(self, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        last: Any = self.network.get_submodule(self.last_layer)
        map_BDHW = as_map(output)
        with torch.autocast(output.device.type, enabled=False):
            if self.norm_layer is not None:
                map_BDHW = _normed(self.network.get_submodule(self.norm_layer), map_BDHW.movedim(1, 3)).movedim(3, 1)
            self.places_BKHW = logits_at_places(map_BDHW, last.weight, last.bias)


def _hook(watched: nn.Module, keep: WeakMethod[Any]) -> Callable[..., None]:
    """A hook that watches this very layer, and none that was copied from it with all its hooks."""

    def hook(layer: nn.Module, *passed: Any) -> None:
        method = keep()
        if layer is watched and method is not None:
            method(layer, *passed)

    return hook


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
            if isinstance(layer, _LAST_LAYERS) and _is(output, logits_BK):
                found = name
    if not found:
        raise InputError(
            "its features cannot be found, because no linear layer or convolution returns its logits unchanged; choose "
            "a loss that compares logits"
        )
    return found


def find_map_layer(network: nn.Module, images_BCHW: Tensor) -> tuple[str, str | None]:
    """The name of the layer that returns the last feature map, and that of the LayerNorm behind it, if there is one.

    It is the last layer whose values at each place are as many as the last layer takes. What that takes must be their
    mean over places, or a token such as the class token, perhaps after a LayerNorm: only then does it predict at each
    place. Raises InputError where no layer is such.
    """
    last_layer = find_last_layer(network, images_BCHW)
    last: Any = network.get_submodule(last_layer)
    width, taps, found, map_ = last.weight.shape[1], Taps(network, last_layer), "", None
    with torch.no_grad(), _watched(network) as outputs:
        _logits(network, images_BCHW)
        for name, _, output in outputs:
            if isinstance(output, Tensor) and len(output) == len(images_BCHW) and _is_map(output, width):
                found, map_ = name, output
    if map_ is None:
        raise InputError(
            f"it cannot predict at places of the image: no layer returns {width} values at several places, which its "
            "last layer takes"
        )
    features_BD = taps.features_BD
    assert features_BD is not None
    pooled = [as_map(map_).mean(dim=(2, 3))]
    if map_.dim() == 3:
        pooled += list(map_[:, : map_.shape[1] - _side(map_) ** 2].float().unbind(dim=1))
    norms = [name for name, layer, output in outputs if isinstance(layer, nn.LayerNorm) and _is(output, features_BD)]
    for norm in (None, *norms):
        layer = None if norm is None else network.get_submodule(norm)
        if any(_is_close(own if layer is None else _normed(layer, own), features_BD) for own in pooled):
            return found, norm
    raise InputError(
        f"it cannot predict at places of the image: what its last layer takes is neither the mean of the places that "
        f"{found} returns nor a token beside them"
    )


def as_map(output: Tensor) -> Tensor:
    """A feature map [B, D, H, W] or [B, H, W, D] of square images, or tokens [B, N, D], as [B, D, H, W] in float32.

    Of tokens, those that stand for no place of the image, such as the class token, come first, and are left out: as
    many are kept as the largest square number.
    """
    if output.dim() == 4:
        is_channels_last = output.shape[1] == output.shape[2] != output.shape[3]  # as in timm's Swin transformers
        return (output.permute(0, 3, 1, 2) if is_channels_last else output).float()
    side = _side(output)
    places_BDN = output[:, output.shape[1] - side**2 :].transpose(1, 2)
    return places_BDN.reshape(*places_BDN.shape[:2], side, side).float()


def _side(tokens_BND: Tensor) -> int:
    return int(tokens_BND.shape[1] ** 0.5)


def _is_map(output: Tensor, width: int) -> bool:
    if output.dim() not in (3, 4) or output[0].numel() <= width:
        return False
    found = as_map(output)
    return found.shape[1] == width and found.shape[2] > 1


def _logits(network: nn.Module, images_BCHW: Tensor) -> Tensor:
    return logits_of(network.output(images_BCHW) if isinstance(network, Classifier) else network(images_BCHW))


def _is(output: Any, wanted_BD: Tensor) -> bool:
    return isinstance(output, Tensor) and torch.equal(output.flatten(1).to(wanted_BD), wanted_BD)


def _is_close(found_BD: Tensor, wanted_BD: Tensor) -> bool:
    """Whether they differ by no more than rounding does, of bfloat16 too."""
    return bool((found_BD - wanted_BD).norm() <= 0.02 * wanted_BD.norm())


def _normed(layer: Any, values_D: Tensor) -> Tensor:
    """What a LayerNorm makes of values whose last dimension is their width, whatever layout it takes by itself."""
    weight, bias = (None if own is None else own.float() for own in (layer.weight, layer.bias))
    return F.layer_norm(values_D, values_D.shape[-1:], weight, bias, layer.eps)


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[tuple[str, nn.Module, Any]]]:
    """Gathers (name, layer, output) of every layer without parts of its own, and of every block, in their order.

    Outputs are copies, as the next layer may write over them.
    """
    outputs: list[tuple[str, nn.Module, Any]] = []

    def hook_of(name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, _: Any, output: Any) -> None:
            outputs.append((name, layer, output.detach().clone() if isinstance(output, Tensor) else output))

        return keep

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in network.named_modules() if name]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
