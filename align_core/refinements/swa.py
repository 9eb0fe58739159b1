"""The mean of weights gathered along a fine-tune (SWA; Izmailov et al., UAI 2018, 1803.05407)."""

from collections.abc import Callable

from torch import nn

from align_core.refinements.gathering import Gathering, parameters_of
from align_core.weights import State


class Swa(Gathering):
    """The mean of the parameters, gathered `per_epoch` times an epoch from the share `start` of all steps on.

    BatchNorm statistics are not averaged but taken anew for the mean, from training images.
    """

    def __init__(self, steps_per_epoch: int, total_steps: int, seed: int, per_epoch: int, start: float) -> None:
        super().__init__(steps_per_epoch, per_epoch, first=int(start * total_steps))
        self.mean: State = {}

    def take(self, network: nn.Module) -> None:
        """Adds the parameters to the mean."""
        for name, value in parameters_of(network).items():
            if name in self.mean:
                self.mean[name].lerp_(value, 1 / self.gathered)
            else:
                self.mean[name] = value.clone()

    def tensors(self) -> State:
        """What has been gathered, by name."""
        return self.mean

    def restore_tensors(self, state: State) -> None:
        """Goes on from what `tensors` returned."""
        self.mean = state

    def networks(self, network: nn.Module, refreshed: Callable[[State], State]) -> list[State]:
        """The mean as the one network that is kept; the last weights where none were gathered."""
        return [refreshed(network.state_dict() | self.mean)]
