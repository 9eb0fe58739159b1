"""Weight scaling, the last step of SASD-WS (Wu et al., CVPR 2024)."""

from collections.abc import Callable

from torch import nn

from align_core.weights import State


class Scaled:
    """The last weights, those of every convolution times `factor`; BatchNorm statistics and all else are as they were.

    As in the authors' code, only layers of the very class Conv2d count, and no biases.
    """

    def __init__(self, steps_per_epoch: int, total_steps: int, seed: int, factor: float) -> None:
        self.factor = factor

    def gather(self, network: nn.Module, step_number: int) -> None:
        """Does nothing: the weights after the last step are all that is scaled."""

    def state(self) -> State:
        """Nothing is to be saved."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing is to be restored."""

    def networks(self, network: nn.Module, refreshed: Callable[[State], State]) -> list[State]:
        """The last weights, scaled, as the one network that is kept."""
        layers = network.named_modules(remove_duplicate=False)
        weights = {f"{name}.weight" for name, layer in layers if type(layer) is nn.Conv2d}
        return [{name: own * self.factor if name in weights else own for name, own in network.state_dict().items()}]
