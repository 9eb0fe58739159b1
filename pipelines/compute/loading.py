"""Loading networks in a worker: weights from the store or from the configuration, on the device, ready to predict."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from align_core.defences import defended
from align_core.errors import InputError
from align_core.folding import fold
from align_core.model_config import Combine, Precision
from align_core.models import Classifier, Ensemble, load
from align_core.weights import hash_state, hash_weights
from pipelines.compute.networks import Network
from pipelines.compute.on_node import same_everywhere, weights_on_node
from pipelines.failure import InputChangedError
from pipelines.storage.store import Store


@dataclass(frozen=True)
class NetworkLoader:
    """How the networks of one run are loaded.

    Args:
        store: where the weights of trained and aligned networks lie.
        networks: by name.
        classes, channels: of the images.
        precision: of every prediction.
    """

    store: Store
    networks: Mapping[str, Network]
    classes: int
    channels: int
    precision: Precision

    def only(self, names: Collection[str]) -> "NetworkLoader":
        """Returns a loader that is restricted to these networks, so that less is sent to workers."""
        return replace(self, networks={name: self.networks[name] for name in names})

    def of_any_weights(self) -> "NetworkLoader":
        """Returns a loader that takes weights as they are now: `witness verify` says what they predict."""
        return replace(self, networks={name: replace(own, digest=None) for name, own in self.networks.items()})

    def load(self, name: str, device: str) -> Classifier:
        """One network on the device, in eval mode, its parameters frozen.

        Raises InputChangedError where its weights are not those that it had when the models were inspected.
        """
        network = self.networks[name]
        weights = load_safetensors(self.store.read(network.stored)) if network.stored else None
        config = network.config if network.stored else weights_on_node(network.config)
        classifier = load(config, self.classes, self.channels, weights)
        if network.config.brings_weights and weights is None:
            if network.digest is not None and hash_state(classifier.net) != network.digest:
                raise InputError(
                    f"models.{name}: the factory {network.config.factory} returns other weights here than when it was "
                    "inspected; are the files that it reads others here, or does it draw weights at random?"
                )
        elif network.digest is not None and hash_weights(classifier.net.state_dict()) != network.digest:
            raise InputChangedError(
                f"models.{name}: its weights are not as they were when the models were inspected. Run again, and leave "
                f"images and weights as they are while a run is at work. {same_everywhere()}"
            )
        defended(classifier, network.wraps)
        classifier.precision = self.precision
        return on_device(classifier, device, network.channels_last)


class LoadedNetworks:
    """The networks that one worker holds. Each is loaded when it is first asked for; the least recently used ones go.

    Args:
        loader, device: how networks are loaded, and onto which device.
        most: how many are held at once, if not more are needed for one prediction; None for no limit.
    """

    def __init__(self, loader: NetworkLoader, device: str, most: int | None = None) -> None:
        self._loader, self._device, self._most = loader, device, most
        self._loaded: OrderedDict[tuple[str, bool], Classifier] = OrderedDict()

    def network(self, name: str) -> Classifier:
        """One network by name as it is trained, loaded if it is not held already."""
        return self._members([name], folds=False)[0]

    def mean_of(self, names: Sequence[str], combine: Combine = "logits") -> nn.Module:
        """One network as it predicts, or an ensemble that returns the mean of the logits of several.

        Its BatchNorms are folded where the inspection of the models found that they can be. What attacks on an ensemble
        go by is `combine`.
        """
        members = self._members(names, folds=True)
        return members[0] if len(members) == 1 else Ensemble(members, combine)

    def _members(self, names: Sequence[str], folds: bool) -> list[Classifier]:
        keys = [(name, folds and bool(self._loader.networks[name].folded)) for name in names]
        for key in keys:
            if key in self._loaded:
                self._loaded.move_to_end(key)
        missing = [key for key in keys if key not in self._loaded]
        while self._most is not None and self._loaded and len(self._loaded) + len(missing) > self._most:
            if next(iter(self._loaded)) in keys:
                break
            self._loaded.popitem(last=False)
        for key in missing:
            own = self._loader.load(key[0], self._device)
            self._loaded[key] = fold(own, self._loader.networks[key[0]].folded) if key[1] else own
        return [self._loaded[key] for key in keys]


def on_device(classifier: Classifier, device: str, channels_last: bool = True) -> Classifier:
    """Moves the network to the device, its convolutions in channels-last layout, which is faster on CPU and GPU.

    Not every network can be used in this layout (`align_core.trial` finds out which).
    """
    classifier.to(device)
    return classifier.to(memory_format=torch.channels_last) if channels_last else classifier
