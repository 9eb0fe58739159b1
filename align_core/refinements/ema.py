"""The exponential moving average of the weights."""

from collections.abc import Callable

from torch import nn

from align_core.weights import State


class Ema:
    """The exponential moving average of weights and BatchNorm statistics (timm's ModelEmaV3 without warm-up).

    It begins with the weights after the first step; after each later one, average = decay * average + (1 - decay) *
    weights. Whole numbers, such as BatchNorm's count of batches, are those of the last step.
    """

    def __init__(self, steps_per_epoch: int, total_steps: int, seed: int, decay: float) -> None:
        self.decay = decay
        self.average: State = {}

    def gather(self, network: nn.Module, step_number: int) -> None:
        """Takes in the weights after step number `step_number`, counted from 1."""
        for name, value in network.state_dict().items():
            if name in self.average and value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.decay)
            else:
                self.average[name] = value.detach().clone()

    def state(self) -> State:
        """What it has gathered, to be saved."""
        return dict(self.average)

    def restore(self, state: State) -> None:
        """Goes on from what `state` returned."""
        self.average = {name: value.clone() for name, value in state.items()}

    def networks(self, network: nn.Module, refreshed: Callable[[State], State]) -> list[State]:
        """The average, as the one network that is kept; the weights as they are where no step was taken."""
        return [self.average or network.state_dict()]
