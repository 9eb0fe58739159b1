"""Networks in a worker's hands: weights from the store or from the configuration, on the device, ready to predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from align_core.models import Classifier, Ensemble, Precision, load
from pipelines.inspection import Network
from pipelines.store import Store


@dataclass(frozen=True)
class NetworkLoader:
    """How networks are loaded in this run.

    Args:
        store: where trained and aligned weights lie.
        networks: by name.
        classes, channels: of the data.
        precision: of every prediction.
    """

    store: Store
    networks: Mapping[str, Network]
    classes: int
    channels: int
    precision: Precision

    def load(self, name: str, device: str) -> Classifier:
        """One network, frozen, in eval mode."""
        network = self.networks[name]
        weights = load_safetensors(self.store.read(network.stored)) if network.stored else None
        classifier = load(network.config, self.classes, self.channels, weights)
        classifier.precision = self.precision
        return on_device(classifier, device)


class LoadedNetworks:
    """The networks that one worker holds: each is loaded once, when it is first asked for."""

    def __init__(self, loader: NetworkLoader, device: str) -> None:
        self._loader, self._device = loader, device
        self._loaded: dict[str, Classifier] = {}

    def network(self, name: str) -> Classifier:
        """One network by name."""
        if name not in self._loaded:
            self._loaded[name] = self._loader.load(name, self._device)
        return self._loaded[name]

    def mean_of(self, names: Sequence[str]) -> nn.Module:
        """One network, or the mean of several's logits."""
        members = [self.network(name) for name in names]
        return members[0] if len(members) == 1 else Ensemble(members)


def on_device(classifier: Classifier, device: str) -> Classifier:
    """Moved to the device; convolutions channels-last, which is faster on CPU and GPU."""
    classifier.to(device)
    return classifier.to(memory_format=torch.channels_last)


def use_threads(count: int) -> None:
    """Gives torch the CPU threads that this worker was given; Ray leaves it one."""
    torch.set_num_threads(count)
