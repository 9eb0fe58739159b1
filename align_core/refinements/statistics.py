"""BatchNorm statistics, taken anew for weights that no training step has seen."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from align_core.refinements.at import logits
from align_core.weights import State


def refreshed(network: nn.Module, state: State, batches: Iterable[Tensor]) -> State:
    """The state with BatchNorm statistics that are the mean over batches of images, each of which counts alike.

    This follows Izmailov et al. (2018), as `torch.optim.swa_utils.update_bn` does. The network is left as it was. Where
    it has no BatchNorm that is trained, the state is returned as it is.

    Raises ValueError where it has, and there is no batch.
    """
    layers = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    layers = [part for part in layers if part.training and part.track_running_stats]
    if not layers:
        return state
    before = {name: value.clone() for name, value in network.state_dict().items()}
    momenta = [layer.momentum for layer in layers]
    try:
        network.load_state_dict(state)
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over the batches
        with torch.no_grad():
            met = [len(logits(network, images_BCHW)) for images_BCHW in batches]
        if not met:
            raise ValueError("the BatchNorm statistics of averaged weights are taken from training images: give some")
        return {name: value.clone() for name, value in network.state_dict().items()}
    finally:
        network.load_state_dict(before)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
